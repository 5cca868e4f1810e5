"""Teltonika's protocols. Imported by `protocols/`."""
