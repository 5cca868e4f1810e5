"""What the API program and the query program keep to on the connections between them.

Apart from `forward.py`, whose HTTP client the query program doesn't need: 10 MB, and 65 ms of each start.
"""

from __future__ import annotations

MAX_CONNECTIONS = 256
"""Requests under way at once; the query program itself bounds those that wait."""

KEEP_ALIVE_S = 60
"""How long a connection to the query program is kept for the next request."""

SCHEME = b"whimbrel-scheme"
"""A header of ours: what the client speaks, https or http, which links in answers need."""

ADDRESS = b"whimbrel-address"
"""The same: the client's address, as limits know it (telemetry/limits/client_address.py). Empty if it has none."""
