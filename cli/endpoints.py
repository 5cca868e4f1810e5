"""Where the box listens, as its clients name it."""

from __future__ import annotations

import httpx

from telemetry.config import is_loopback

ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)
"""Addresses that one listens on but can't call, and what to call instead on the same machine."""


def reachable(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    return ANYWHERE.get(host, host)


def http_url(host: str, port: int) -> str:
    """The URL by which this machine reaches a server that listens on `host` and `port`."""
    host = reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def client(url: str, timeout_s: float) -> httpx.Client:
    """One keep-alive connection to `url`. For this machine itself no proxy of the environment is asked."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    trust_env = not is_loopback(httpx.URL(url).host)
    return httpx.Client(base_url=url, timeout=timeout_s, limits=limits, trust_env=trust_env)
