"""The interface of decoders, and splitting of byte streams into frames.

Imported by `trackers/`, `protocols/` and all higher layers.
"""
