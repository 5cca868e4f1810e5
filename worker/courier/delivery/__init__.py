"""Deliveries: their state on disk, pace and back-off. Imported by `alerts/`, `targets/`, `forwarding/`."""
