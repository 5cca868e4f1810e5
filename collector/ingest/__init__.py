"""From decoded records to a group that Redis has on disk: authorization, limits, watermarks, group commit.

Imported by `http/`, `listeners/`, `mqtt/` and the program.
"""
