"""Names by which clients may reach the box: a `Host` that is none of them may be a stranger's name, rebound to us.

A page of `evil.example.com` is that site's to a browser even after its DNS name was changed to 127.0.0.1. Such a page
is of the same origin as the box, so only the name in `Host` gives it away (DNS rebinding). An IP address in `Host` was
not looked up and cannot be rebound.

A box that requires keys, or speaks TLS, is protected without this: the page has no key, and the browser refuses our
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
"""Ends of names that no public DNS holds (RFC 6762, RFC 8375, ICANN's resolution of 2024 for `internal`)."""

MAX_KNOWN_HOSTS = 256
"""Values of `Host` whose verdict is remembered."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.%~-]+)?\]|[^\s,/?#@\[\]:\"<>\\^`{|}]*)(?::(\d{0,5}))?")
"""A name or an address, and perhaps a port (RFC 9110 7.2)."""


class Hosts:
    """The names. `names` may hold `*.example.com`, for all names below it, and `*`, for any name.

    With `has_neighbours` other machines reach the port, so names of a local network are accepted, too: those without a
    dot and those of `LOCAL_ENDINGS`.
    """

    def __init__(self, names: Iterable[str], has_neighbours: bool = False) -> None:
        given = [name.lower().rstrip(".") for name in names]
        self._is_any = ANY in given
        self._names = frozenset(given)
        self._endings = tuple(name.removeprefix("*") for name in given if name.startswith(BELOW))
        if has_neighbours:
            self._endings += LOCAL_ENDINGS
        self._has_neighbours = has_neighbours
        self.has = lru_cache(MAX_KNOWN_HOSTS)(self._has)
        """Whether the value of a `Host` names this box."""

    @classmethod
    def of(cls, settings: Settings, host: str, is_open: bool) -> Hosts:
        """Those of a port bound to `host`. One that `is_open` asks for no key and speaks no TLS."""
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
        found = name_and_port(value)
        if found is None:
            return False
        name = found[0]
        return self._is_any or name in self._names or name.endswith(self._endings) or self._is_local(name)

    def _is_local(self, name: str) -> bool:
        if name in ("", "localhost") or name.endswith(".localhost") or _is_address(name):
            return True
        return self._has_neighbours and "." not in name


def name_and_port(value: bytes) -> tuple[str, int | None] | None:
    """The name or address in a `Host`, in lower case, and its port if there is one; None where it can't be a `Host`.

    No browser sends an empty one: a client may where its URL has no host.
    """
    found = _HOST.fullmatch(value.decode("latin-1"))
    if found is None:
        return None
    return found[1].lower().rstrip("."), int(found[2]) if found[2] else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
