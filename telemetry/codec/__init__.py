"""Decoders and encoders of records: JSON, MessagePack, frames, and the field rules of the legacy API.

Imported by `hot_store/` and all higher layers.
"""
