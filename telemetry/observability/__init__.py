"""Metrics and the log. Imported by everything above `model/`."""
