"""Decides whether a page of another site made a request, by headers that browsers add and no page can set.

`Sec-Fetch-Site` says it, where the browser takes the box's address for safe: loopback and HTTPS. Elsewhere `Origin`
does, which browsers add to whatever is no plain GET or HEAD. Devices and programs send neither. A plain GET without
either is harmless where it only reads: no page can see the answer. What stores by GET asks `is_of_browser`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from telemetry.browsers.host_names import name_and_port

ANY = "*"

HOST, ORIGIN, SITE = b"host", b"origin", b"sec-fetch-site"
MODE, DESTINATION = b"sec-fetch-mode", b"sec-fetch-dest"
SEEN = frozenset((HOST, ORIGIN, SITE, MODE, DESTINATION))
"""Headers that this is decided by."""

OURS = (b"same-origin", b"none")
"""Values of `Sec-Fetch-Site`: a page of the box itself; the user, who typed an address, say."""

PORTS = {"http": 80, "https": 443}

Headers = Iterable[tuple[bytes, bytes]]


def seen_in(headers: Headers) -> dict[bytes, bytes]:
    """Those of a request's headers that this is decided by."""
    return {name: value for name, value in headers if name in SEEN}


class Origins:
    """Origins whose pages may write and read: the box's own, and those that the settings name, or all with `*`."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._is_any = ANY in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def is_foreign(self, seen: Mapping[bytes, bytes]) -> bool:
        """Whether a page made a request that may neither write nor read here. `seen` is what `seen_in` returns."""
        origin, site = seen.get(ORIGIN), seen.get(SITE)
        if origin is not None and (self._is_any or origin in self._allowed):
            return False
        if site is not None:
            return site not in OURS
        return origin is not None and not is_same(origin, seen.get(HOST, b""))


def is_same(origin: bytes, host: bytes) -> bool:
    """Whether an origin is that of the requested host. A proxy may speak TLS for us, so its scheme does not count."""
    asked = name_and_port(host)
    try:
        parts = urlsplit(origin.decode("latin-1"))
        port = parts.port
    except ValueError:
        return False
    usual = PORTS.get(parts.scheme)
    if asked is None or usual is None or not parts.hostname:
        return False
    return (parts.hostname.rstrip("."), port or usual) == (asked[0].strip("[]"), asked[1] or usual)


def is_navigation(method: str, seen: Mapping[bytes, bytes]) -> bool:
    """Whether a request opens a page in a tab, as a link from another site does; not in a frame."""
    if method not in ("GET", "HEAD") or seen.get(MODE) != b"navigate":
        return False
    return seen.get(DESTINATION, b"document") == b"document"


def is_of_browser(headers: Headers) -> bool:
    """Whether a browser made a request without saying for which page: an image, a link, an address that was typed.

    Where it sends no `Sec-Fetch-Site` a browser is known by what they all send: its kind, and its user's languages.
    """
    found = dict(headers)
    if ORIGIN in found:
        return False
    is_browser = found.get(b"user-agent", b"").startswith(b"Mozilla/5.0 (") and b"accept-language" in found
    return is_browser or SITE in found
