"""Summaries, trips and stops, computed from records. Imported by the programs of `api/`."""
