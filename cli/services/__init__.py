"""Starting the box: `whimbrel up`, its supervisor, and systemd units. Imported by `cli/demo/` and `cli/main.py`."""
