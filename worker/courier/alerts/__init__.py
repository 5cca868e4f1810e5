"""Alerts to webhooks: silent devices, readiness, pending events. Imported by `worker/courier/`."""
