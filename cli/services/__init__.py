"""Running the box: `whimbrel up`, its supervisor, and units of systemd. Imported by `cli/demo/` and `cli/main.py`."""
