"""The audit log over HTTP, and the entries that the API's own routes write to it.

Imported by the programs of `api/`.
"""
