"""The latest record of each device: one, all of them, as of a time, and live.

Imported by `devices/`, `legacy/`, `status/` and the programs.
"""
