"""The archive: a Delta table of Parquet files by day, its commits and its changes. The only place that knows its
layout.

Imported by `coordination/` and all above.
"""
