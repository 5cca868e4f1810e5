"""Detects requests made by pages of other sites, from headers that browsers add and pages cannot set.

`Sec-Fetch-Site` is sent where the browser considers the box's address secure: loopback and HTTPS. Elsewhere `Origin`
serves, which browsers add to all requests but plain GET and HEAD. Devices and programs send neither. A plain GET
without either is harmless if it only reads, because no page can see the response. Routes that store by GET use
`is_of_browser`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from telemetry.browsers.host_names import name_and_port

ANY = "*"

HOST, ORIGIN, SITE = b"host", b"origin", b"sec-fetch-site"
MODE, DESTINATION = b"sec-fetch-mode", b"sec-fetch-dest"
SEEN = frozenset((HOST, ORIGIN, SITE, MODE, DESTINATION))
"""Headers used for the decision."""

OURS = (b"same-origin", b"none")
"""Accepted values of `Sec-Fetch-Site`: from a page of the box itself, or from an address that the user typed."""

PORTS = {"http": 80, "https": 443}

Headers = Iterable[tuple[bytes, bytes]]


def seen_in(headers: Headers) -> dict[bytes, bytes]:
    """The headers of a request that are used for the decision."""
    return {name: value for name, value in headers if name in SEEN}


class Origins:
    """Origins whose pages may write and read: the box's own, and the settings' origins, or all with `*`."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._is_any = ANY in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def is_foreign(self, seen: Mapping[bytes, bytes]) -> bool:
        """True if a page made the request that may neither write nor read here. `seen` is the result of `seen_in`."""
        origin, site = seen.get(ORIGIN), seen.get(SITE)
        if origin is not None and (self._is_any or origin in self._allowed):
            return False
        if site is not None:
            return site not in OURS
        return origin is not None and not is_same(origin, seen.get(HOST, b""))


def is_same(origin: bytes, host: bytes) -> bool:
    """True if an origin has the requested host. The scheme is ignored, because a proxy may terminate TLS."""
    requested = name_and_port(host)
    try:
        parts = urlsplit(origin.decode("latin-1"))
        port = parts.port
    except ValueError:
        return False
    usual = PORTS.get(parts.scheme)
    if requested is None or usual is None or not parts.hostname:
        return False
    return (parts.hostname.rstrip("."), port or usual) == (requested[0].strip("[]"), requested[1] or usual)


def is_navigation(method: str, seen: Mapping[bytes, bytes]) -> bool:
    """True if a request opens a page in a tab, as a link from another site does, and not in a frame."""
    if method not in ("GET", "HEAD") or seen.get(MODE) != b"navigate":
        return False
    return seen.get(DESTINATION, b"document") == b"document"


def is_of_browser(headers: Headers) -> bool:
    """True if a browser made a request without naming the page: an image, a link, a typed address.

    Without `Sec-Fetch-Site` a browser is recognised by headers that all browsers send: its kind and the user's
    languages.
    """
    by_name = dict(headers)
    if ORIGIN in by_name:
        return False
    is_browser = by_name.get(b"user-agent", b"").startswith(b"Mozilla/5.0 (") and b"accept-language" in by_name
    return is_browser or SITE in by_name
