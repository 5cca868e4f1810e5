"""The latest record: of one device, of all, as of a time, and live.

Imported by `devices/`, `legacy/`, `status/` and the programs.
"""
