"""Limits of concurrent connections and handshakes, in total and per owner."""

from __future__ import annotations

from collections import Counter


class Share:
    """Counts open items, in total and per owner. `max_per_owner` 0 = no limit; an empty owner has no limit either."""

    def __init__(self, what: str, setting: str, maximum: int, max_per_owner: int) -> None:
        self.maximum = maximum
        self.max_per_owner = max_per_owner
        self.open = 0
        self._of: Counter[str] = Counter()
        self._what = what
        self._setting = setting

    def refusal(self, owner: str) -> str:
        """Why an owner may not open another item; empty if it may."""
        if self.open >= self.maximum:
            return f"{self.maximum} {self._what} already ({self._setting})"
        if owner and 0 < self.max_per_owner <= self._of[owner]:
            return f"{self.max_per_owner} {self._what} already from {owner} ({self._setting}_per_address)"
        return ""

    def enter(self, owner: str) -> None:
        """Count an item in."""
        self.open += 1
        self._of[owner] += 1

    def leave(self, owner: str) -> None:
        """Count an item out."""
        self.open -= 1
        self._of[owner] -= 1
        if not self._of[owner]:
            del self._of[owner]

    @property
    def largest(self) -> int:
        """Number of open items of the owner with most."""
        return max(list(self._of.values()), default=0)


def tcp_share(maximum: int, max_per_address: int) -> Share:
    """Connections of devices over TCP."""
    return Share("connections are open", "collector.max_connections", maximum, max_per_address)


def http_share(maximum: int, max_per_address: int) -> Share:
    """Connections over HTTP."""
    return Share("connections are open", "collector.max_http_connections", maximum, max_per_address)


def handshake_share(maximum: int, max_per_address: int) -> Share:
    """TLS handshakes in progress."""
    return Share("TLS handshakes are under way", "tls.max_handshakes", maximum, max_per_address)
