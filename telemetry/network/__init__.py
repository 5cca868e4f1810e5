"""Sockets: accepting, TLS, client certificates. Imported by `http/` and all programs."""
