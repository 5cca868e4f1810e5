"""Queclink's @Track protocol (GL200 and related models). Imported by `protocols/`."""
