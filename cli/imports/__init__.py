"""`whimbrel import`: batches of imported records, its journal, and undo. Imported by `cli/main.py`."""
