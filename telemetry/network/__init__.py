"""Sockets: the accept loop, TLS, and client certificates. Imported by `http/` and all programs."""
