"""Formats of files that are imported: one file each. Imported by `cli/imports/`."""
