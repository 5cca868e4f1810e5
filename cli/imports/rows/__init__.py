"""Rows of imported files, and how each becomes a record. Imported by `cli/imports/`."""
