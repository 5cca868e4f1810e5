"""The hot store: per-device streams and the latest records in Redis, and the functions that change them. The only place
that knows its keys.

Imported by `archive/` and all above.
"""
