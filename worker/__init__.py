"""The worker: takes records from the hot store to the archive, exactly once."""
