"""What a decoder is, and the cutting of a stream into frames. Imported by `trackers/`, `protocols/` and all above."""
