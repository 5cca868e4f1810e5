"""Forwarding: reads the archive's log version by version and delivers the records. Imported by `worker/courier/`."""
