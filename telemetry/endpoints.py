"""Where the box listens, as its clients name it."""

from __future__ import annotations

ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)
"""Addresses that one listens on but can't call, and what to call instead on the same machine."""


def reachable(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    return ANYWHERE.get(host, host)


def http_url(host: str, port: int) -> str:
    """The URL by which this machine reaches a server that listens on `host` and `port`."""
    host = reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
