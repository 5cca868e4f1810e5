"""Geometry of tracks: moves, trips and stops, simplified lines. Imported by `formats/`, `analytics/` and all above."""
