"""Running a question: threads with DuckDB, slots, the client's pace, metrics of requests.

Imported by `records/`, `latest/`, `analytics/` and all above.
"""
