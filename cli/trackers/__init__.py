"""Commands about trackers: `decode` and `sniff`. Imported by `cli/main.py`."""
