"""Commands that send records: `send` and `simulate`. Imported by `cli/demo/` and `cli/main.py`."""
