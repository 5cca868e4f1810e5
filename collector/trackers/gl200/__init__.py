"""Queclink's @Track protocol (GL200 and its kin). Imported by `protocols/`."""
