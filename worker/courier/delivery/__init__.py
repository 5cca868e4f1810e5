"""Deliveries: their state on disk, HTTP requests, bandwidth limit and backoff.

Imported by `alerts/`, `targets/` and `forwarding/`.
"""
