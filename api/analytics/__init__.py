"""Summaries, trips and stops: what a device's records add up to. Imported by the programs of `api/`."""
