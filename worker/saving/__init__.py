"""A save: moves records of a shard from Redis streams to files of the archive. Imported by `worker/` and `cli/`."""
