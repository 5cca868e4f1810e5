"""Execution of queries: threads with DuckDB, fair slots, slow clients, metrics of requests.

Imported by `records/`, `latest/`, `analytics/` and all above.
"""
