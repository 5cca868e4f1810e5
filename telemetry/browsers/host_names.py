"""Host names of the box. Requests with another `Host` are rejected, as protection against DNS rebinding.

A page of `evil.example.com` belongs to that site even after its DNS name was changed to 127.0.0.1. For the browser the
box then has the same origin as the page; only the name in `Host` reveals the attack. An IP address in `Host` needs no
DNS lookup and cannot be rebound.

A box that requires keys or uses TLS is protected without this check: the page has no key, and the browser rejects the
certificate for its name. There any name is accepted unless `http.allowed_hosts` is set.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from telemetry.config.settings import Settings
from telemetry.config.validation import is_loopback

ANY = "*"
BELOW = "*."

LOCAL_ENDINGS = (".local", ".internal", ".home.arpa")
"""Suffixes of names that exist in no public DNS (RFC 6762, RFC 8375, ICANN's resolution of 2024 for `internal`)."""

MAX_KNOWN_HOSTS = 256
"""Number of `Host` values whose result is cached."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.%~-]+)?\]|[^\s,/?#@\[\]:\"<>\\^`{|}]*)(?::(\d{0,5}))?")
"""A name or an address, and an optional port (RFC 9110 7.2)."""


class Hosts:
    """The accepted names. `names` may contain `*.example.com`, for all subdomains, and `*`, for any name.

    With `has_neighbours` other machines can reach the port, so names of a local network are accepted, too: names
    without a dot and those with `LOCAL_ENDINGS`.
    """

    def __init__(self, names: Iterable[str], has_neighbours: bool = False) -> None:
        lowered = [name.lower().rstrip(".") for name in names]
        self._is_any = ANY in lowered
        self._names = frozenset(lowered)
        self._endings = tuple(name.removeprefix("*") for name in lowered if name.startswith(BELOW))
        if has_neighbours:
            self._endings += LOCAL_ENDINGS
        self._has_neighbours = has_neighbours
        self.has = lru_cache(MAX_KNOWN_HOSTS)(self._has)
        """True if the value of a `Host` header is a name of this box."""

    @classmethod
    def of(cls, settings: Settings, host: str, is_open: bool) -> Hosts:
        """The names of a port bound to `host`. A port that `is_open` requires no key and has no TLS."""
        allowed = settings.http.allowed_hosts
        if not is_open and not allowed:
            return cls((ANY,))
        machine = socket.gethostname()
        short = machine.partition(".")[0]
        urls = (settings.auth.public_url, settings.courier.api_url, settings.courier.collector_url)
        named = [urlsplit(url).hostname or "" for url in urls]
        bound = (host, settings.api.host, settings.collector.host)
        own = [name for name in (machine, short, f"{short}.local", *bound, *named) if name]
        return cls((*own, *allowed), not is_loopback(host))

    def _has(self, value: bytes) -> bool:
        host = name_and_port(value)
        if host is None:
            return False
        name = host[0]
        return self._is_any or name in self._names or name.endswith(self._endings) or self._is_local(name)

    def _is_local(self, name: str) -> bool:
        if name in ("", "localhost") or name.endswith(".localhost") or _is_address(name):
            return True
        return self._has_neighbours and "." not in name


def name_and_port(value: bytes) -> tuple[str, int | None] | None:
    """The name or address in a `Host`, in lower case, and its port if present; None if the value is not valid.

    An empty `Host` is valid: clients send it if their URL has no host. Browsers never do.
    """
    match = _HOST.fullmatch(value.decode("latin-1"))
    if match is None:
        return None
    return match[1].lower().rstrip("."), int(match[2]) if match[2] else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
