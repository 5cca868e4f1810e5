"""The clock of all background jobs; the place of compaction and retention."""
