"""Commands for administrators: status, keys, users, drain, compact, quarantine, deletion, audit.

Imported by `cli/main.py`.
"""
