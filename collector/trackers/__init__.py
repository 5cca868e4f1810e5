"""Protocols of GPS trackers, a file or a folder each. Imported by `protocols/`."""
