"""Metrics and logs. Imported by everything above `model/`."""
