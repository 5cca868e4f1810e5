"""The audit log: its entries, writer and reader. Imported by `http/` and all programs."""
