"""The audit log: entries, writing, reading. Imported by `http/` and all programs."""
