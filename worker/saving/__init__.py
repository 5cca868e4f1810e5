"""A save: from a shard's streams to files of the archive. Imported by `worker/` and `cli/`."""
