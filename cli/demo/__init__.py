"""`whimbrel demo`: a temporary box that replays recorded or simulated traffic. Imported by `cli/main.py`."""
