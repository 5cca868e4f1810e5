"""Protocols of trackers: one file or folder each. Imported by `protocols/`."""
