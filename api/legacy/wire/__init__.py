"""The legacy API's form on the wire: dates, bodies, links, records and answers as its clients know them.

Imported by `legacy/` and `legacy/paging/`.
"""
