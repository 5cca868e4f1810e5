"""Readers of imported files, a file for each format. Imported by `cli/imports/`."""
