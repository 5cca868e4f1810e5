"""`whimbrel doctor`: checks of the machine and the settings, a file each, each with its advice.

Imported by `cli/main.py` and `cli/services/`.
"""
