"""Pages of the legacy API by number: which records are on page 4711, without reading those before.

Imported by `legacy/`.
"""
