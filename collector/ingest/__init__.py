"""From decoded records to a group that Redis has on disk: limits, batches, watermarks, commits.

Imported by `http/`, `listeners/`, `mqtt/` and the program.
"""
