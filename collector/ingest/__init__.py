"""Intake from decoded records to a group synced by Redis: authorization, limits, watermarks, group commit.

Imported by `http/`, `listeners/`, `mqtt/` and the program.
"""
