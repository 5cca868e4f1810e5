"""Limits of rates, connections, bytes and open files. Imported by `access/`, `network/`, `http/` and all programs."""
