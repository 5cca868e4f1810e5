"""Alarms sent to people: what is watched, silence, messages. Imported by `worker/courier/`."""
