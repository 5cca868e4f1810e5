"""Records of a time range: pages, exports, and the quick way for one device.

Imported by `latest/`, `analytics/`, `devices/`, `legacy/` and the programs.
"""
