"""Who asks, as limits know it: an IPv4 address or an IPv6 network of 64 bits, which is what one customer is given.

Behind proxies that the settings trust it is the last hop that is none of them, of `X-Forwarded-For` or of `Forwarded`
(RFC 7239): what stands before it its sender may have made up. Only the one header counts that the settings name, for a
proxy that writes one of them passes the other on as its client wrote it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from starlette.types import Scope

from telemetry.config.settings import Settings
from telemetry.model.errors import ConfigError

IPV6_BITS = 64
"""A host may choose what is behind them, over and over."""

UNKNOWN = "unknown"
"""Who has no address: a unix socket's peer."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers = Iterable[tuple[bytes, bytes]]

_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("?)([^";]+)\1\s*(?=;|$)', re.IGNORECASE)


@lru_cache(4_096)
def owner(address: str) -> str:
    """The address, or the network, that stands for whoever has this address."""
    found = _read(address)
    if found is None:
        return address or UNKNOWN
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, IPV6_BITS), strict=False))
    return str(found)


ADDRESS = "whimbrel.address"
"""Where in a scope it stands who asks, if that is another than the connection's peer."""


def address_of(scope: Scope) -> str:
    """Who asks in an HTTP request, for people to read: as found out behind proxies, else its connection's peer."""
    found = scope.get(ADDRESS)
    if found is not None:
        return str(found)
    peer = scope.get("client")
    return str(peer[0]) if peer else UNKNOWN


class Addresses:
    """Tells who asks. `trusted` are addresses and networks of proxies, `header` what they write, in lower case."""

    def __init__(self, trusted: Sequence[str], header: str) -> None:
        """Raises `ConfigError` for what is no address or network."""
        self._trusted = tuple(_network(text) for text in trusted)
        self._header = header.encode()
        self._hops = _forwarded if header == "forwarded" else _x_forwarded_for

    @classmethod
    def of(cls, settings: Settings) -> Addresses:
        return cls(settings.limits.trusted_proxies, settings.limits.proxy_header)

    def is_trusted(self, address: str) -> bool:
        """Whether this is a proxy of ours."""
        if not self._trusted:
            return False
        found = _read(address)
        return found is not None and any(found in network for network in self._trusted)

    def asking(self, peer: str, headers: Headers) -> str:
        """Who asks, of a connection from `peer`."""
        if not self._trusted or not self.is_trusted(peer):
            return owner(peer)
        text = b",".join(value for name, value in headers if name == self._header).decode("latin-1")
        last = peer
        for hop in reversed(self._hops(text)):
            if _read(hop) is None:  # hidden, or nonsense: the proxy that told it is as far as we see
                break
            last = hop
            if not self.is_trusted(hop):
                break
        return owner(last)


def _x_forwarded_for(text: str) -> list[str]:
    return [_without_port(hop.strip()) for hop in text.split(",") if hop.strip()]


def _forwarded(text: str) -> list[str]:
    found = [_FOR.search(element) for element in text.split(",") if element.strip()]
    return [_without_port(one[2].strip()) if one else "" for one in found]


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _read(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(f"limits.trusted_proxies: {text!r} is no address and no network like 10.0.0.0/8") from None
