"""Records of a time range: pages, exports, and the fast path for one device.

Imported by `latest/`, `analytics/`, `devices/`, `legacy/` and the programs.
"""
