"""The collector's routes over HTTP, and their description.

Imported by `listeners/`, `collector/__main__.py`, and `api/`, which describes them.
"""
