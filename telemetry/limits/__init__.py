"""Limits of rates, connections and bytes. Imported by `access/`, `network/`, `http/` and all programs."""
