"""Rows of imported files, and their conversion to records. Imported by `cli/imports/`."""
