"""The legacy API on the wire: dates, bodies, links, records and responses as its clients know them.

Imported by `legacy/` and `legacy/paging/`.
"""
