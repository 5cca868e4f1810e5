"""One consistent view of archive and unsaved records, and the memory that it may take.

Imported by `records/` and all above.
"""
