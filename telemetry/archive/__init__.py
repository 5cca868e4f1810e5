"""The archive: a Delta table of Parquet files with one partition per day, and its commit log.

The only folder that knows the table's layout. Imported by `coordination/` and all higher layers.
"""
