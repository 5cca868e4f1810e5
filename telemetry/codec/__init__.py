"""Texts and bytes of records: JSON, MessagePack, fields, frames. Imported by `hot_store/` and all above."""
