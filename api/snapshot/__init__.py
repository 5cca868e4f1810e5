"""One consistent view of archive and unsaved records, and its memory limit. Imported by `records/` and all above."""
