"""The archive: a Delta table of Parquet files, one partition a day, with its commits and their log.

The only folder that knows the table's layout. Imported by `coordination/` and all above.
"""
