"""Commands that read: query, export, files, shell. Imported by `cli/main.py`."""
