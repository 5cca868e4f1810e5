"""Numbered pages of the legacy API: finds the records of page 4711 without reading those before it.

Imported by `legacy/`.
"""
