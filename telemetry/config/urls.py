"""Addresses and URLs of the box for clients on the same machine."""

from __future__ import annotations

from telemetry.config.settings import Settings

ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)
"""Wildcard addresses, and the loopback addresses to connect to instead."""


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return ANYWHERE.get(host, host)


def http_url(host: str, port: int, scheme: str = "http") -> str:
    """The URL at which this machine reaches a server that listens on `host` and `port`."""
    host = reachable(host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def api_url(settings: Settings) -> str:
    """The URL of the box's API."""
    return http_url(settings.api.host, settings.api.port, _scheme(settings))


def collector_url(settings: Settings) -> str:
    """The URL of the box's HTTP collector."""
    return http_url(settings.collector.host, settings.collector.http_port, _scheme(settings))


def _scheme(settings: Settings) -> str:
    return "https" if settings.tls.certificate else "http"
