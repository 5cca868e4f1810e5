"""The interface of a decoder, and cutting a byte stream into frames.

Imported by `trackers/`, `protocols/` and all above.
"""
