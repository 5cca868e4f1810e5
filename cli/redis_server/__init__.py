"""The Redis server that Whimbrel starts by itself, and its users.

Imported by `cli/services/`, `cli/doctor/` and `cli/main.py`.
"""
