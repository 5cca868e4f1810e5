"""How many connections there may be, in all and from one address, and what each is called in the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from itertools import count

from telemetry import meters
from telemetry.logs import of_connection

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
"""Whoever knocks again and again fills no log."""


class Door:
    """Counts connections in and out, and numbers them. `max_per_address` 0 is no limit; `process` is the program's."""

    def __init__(
        self, max_connections: int, max_per_address: int, clock: Callable[[], float], process: int = 0
    ) -> None:
        self._names = (f"c{process or ''}{'.' if process else ''}{number:x}" for number in count(1))
        self.refused = 0
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._clock = clock
        self._inside: Counter[str] = Counter()
        self._open = 0
        self._untold = 0
        meters.CONNECTIONS.one.watch(lambda: self._open)
        meters.CONNECTIONS_LIMIT.one.set(max_connections)
        if max_per_address:
            meters.OF_ONE_ADDRESS.one.watch(lambda: max(list(self._inside.values()), default=0))
            meters.OF_ONE_ADDRESS_LIMIT.one.set(max_per_address)
        self._told_s = -LOG_EVERY_S

    def name(self) -> str:
        """What a connection that has come is called: `c17f`, and `c2.17f` in the third of several processes."""
        return next(self._names)

    def enter(self, address: str, name: str = "") -> bool:
        """Count a connection in; False if there are too many."""
        if self._open >= self._max_connections:
            self._refuse(name, f"{self._max_connections} are open")
            return False
        if 0 < self._max_per_address <= self._inside[address]:
            self._refuse(name, f"{self._max_per_address} are open from {address}")
            return False
        self._open += 1
        self._inside[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count out a connection that was counted in."""
        self._open -= 1
        self._inside[address] -= 1
        if self._inside[address] == 0:
            del self._inside[address]

    def _refuse(self, name: str, why: str) -> None:
        self.refused += 1
        self._untold += 1
        now_s = self._clock()
        if now_s - self._told_s >= LOG_EVERY_S:
            log.warning("closed %d connections at once: %s", self._untold, why, extra=of_connection(name))
            self._told_s, self._untold = now_s, 0
