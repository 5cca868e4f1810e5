"""How commands speak HTTP with the box."""

from __future__ import annotations

import httpx

from telemetry.config import is_loopback


def client(url: str, timeout_s: float) -> httpx.Client:
    """One keep-alive connection to `url`. For this machine itself no proxy of the environment is asked."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    trust_env = not is_loopback(httpx.URL(url).host)
    return httpx.Client(base_url=url, timeout=timeout_s, limits=limits, trust_env=trust_env)
