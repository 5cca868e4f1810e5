"""Commands that read: latest, history, export, files, shell. Imported by `cli/main.py`."""
