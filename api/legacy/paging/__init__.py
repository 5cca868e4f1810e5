"""Numbered pages of the legacy API: finds the records of page 4711 without reading the pages before it.

Imported by `legacy/`.
"""
