"""The collector's routes over HTTP, and their description.

Imported by `listeners/`, `collector/program.py`, and `api/`, which describes them.
"""
