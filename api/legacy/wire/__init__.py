"""The legacy API on the wire: dates, bodies, links, records and responses in the formats that its clients expect.

Imported by `legacy/` and `legacy/paging/`.
"""
