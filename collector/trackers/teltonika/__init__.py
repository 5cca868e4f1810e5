"""Teltonika's protocols: codecs 7, 8, 8 Extended, 16 and their IO elements. Imported by `protocols/`."""
