"""The client's address for limits: an IPv4 address, or an IPv6 network of 64 bits, the size assigned to one customer.

For requests from trusted proxies (limits.trusted_proxies) it is the last hop in `X-Forwarded-For` or `Forwarded` (RFC
7239) that is not itself trusted; earlier hops may be forged. Only the header named in the settings is read, because a
proxy that writes one of them passes the other through unchanged.
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
"""Prefix length of an IPv6 network; a host can choose the remaining bits freely."""

UNKNOWN = "unknown"
"""The owner of connections without an address, on unix sockets."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers = Iterable[tuple[bytes, bytes]]

_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("?)([^";]+)\1\s*(?=;|$)', re.IGNORECASE)


@lru_cache(4_096)
def owner(address: str) -> str:
    """The IPv4 address, or the IPv6 network, to which limits apply."""
    parsed = _read(address)
    if parsed is None:
        return address or UNKNOWN
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, IPV6_BITS), strict=False))
    return str(parsed)


ADDRESS = "whimbrel.address"
"""Key of an ASGI scope for the client's address, if it differs from the connection's peer."""


def address_of(scope: Scope) -> str:
    """The client's address of an HTTP request: from a trusted proxy's header, else the connection's peer."""
    address = scope.get(ADDRESS)
    if address is not None:
        return str(address)
    peer = scope.get("client")
    return str(peer[0]) if peer else UNKNOWN


class Addresses:
    """Finds the client's address. `trusted` are CIDRs of proxies, `header` is their header's name in lower case."""

    def __init__(self, trusted: Sequence[str], header: str) -> None:
        """Raises `ConfigError` if a CIDR is not valid."""
        self._trusted = tuple(_network(text) for text in trusted)
        self._header = header.encode()
        self._hops = _forwarded if header == "forwarded" else _x_forwarded_for

    @classmethod
    def of(cls, settings: Settings) -> Addresses:
        return cls(settings.limits.trusted_proxies, settings.limits.proxy_header)

    def is_trusted(self, address: str) -> bool:
        """True if the address belongs to a trusted proxy."""
        if not self._trusted:
            return False
        parsed = _read(address)
        return parsed is not None and any(parsed in network for network in self._trusted)

    def asking(self, peer: str, headers: Headers) -> str:
        """The client's address for a connection from `peer`."""
        if not self._trusted or not self.is_trusted(peer):
            return owner(peer)
        text = b",".join(value for name, value in headers if name == self._header).decode("latin-1")
        last = peer
        for hop in reversed(self._hops(text)):
            if _read(hop) is None:  # hidden or invalid: use the proxy that reported it
                break
            last = hop
            if not self.is_trusted(hop):
                break
        return owner(last)


def _x_forwarded_for(text: str) -> list[str]:
    return [_without_port(hop.strip()) for hop in text.split(",") if hop.strip()]


def _forwarded(text: str) -> list[str]:
    hops = [_FOR.search(element) for element in text.split(",") if element.strip()]
    return [_without_port(hop[2].strip()) if hop else "" for hop in hops]


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
        raise ConfigError(f"limits.trusted_proxies: {text!r} is not an address or a network like 10.0.0.0/8") from None
