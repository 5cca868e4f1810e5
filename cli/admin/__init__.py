"""Commands for whoever runs the box: status, saving, keys, users, quarantine, deletion, audit.

Imported by `cli/main.py`.
"""
