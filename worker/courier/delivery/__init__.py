"""Deliveries: their state on disk, HTTP requests, bandwidth limit and back-off.

Imported by `alerts/`, `targets/` and `forwarding/`.
"""
