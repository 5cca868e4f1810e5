"""What is read from a track: moves, stops, and a simpler line. Imported by `formats/`, `analytics/` and all above."""
