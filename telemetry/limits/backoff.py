"""Exponential back-off after failed attempts, for whoever is named by a text. Pure; the clock is an argument.

After `free` attempts the next one must wait `FIRST_WAIT_S`, and each further one twice as long as the one before, but
not longer than `max_wait_s`. Attempts are counted before their outcome is known, so that many at once gain nothing; a
success takes its own attempt back, or clears the count. Whoever has made no attempt for `forget_s` is forgotten, and
beyond `max_known` the one whose last attempt is oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

FIRST_WAIT_S = 4.0


class Count(NamedTuple):
    """Attempts of one, and when the next may be made and the last was, in seconds of the clock."""

    attempts: int = 0
    next_at_s: float = 0.0
    last_s: float = 0.0


class Backoff:
    """Counts attempts."""

    def __init__(
        self, free: int, max_wait_s: float, forget_s: float, max_known: int, clock_s: Callable[[], float]
    ) -> None:
        self._free = free
        self._max_wait_s = max_wait_s
        self._forget_s = forget_s
        self._max_known = max_known
        self._clock_s = clock_s
        self._counts: OrderedDict[str, Count] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def wait_s(self, who: str) -> float:
        """Seconds until the next attempt may be made; 0 = now."""
        return max(0.0, self._of(who).next_at_s - self._clock_s())

    def begin(self, who: str) -> None:
        """Count an attempt that is allowed."""
        now_s, found = self._clock_s(), self._of(who)
        over = found.attempts + 1 - self._free
        wait_s = 0.0 if over < 0 else min(self._max_wait_s, FIRST_WAIT_S * 2.0 ** min(over, 60))
        self._counts[who] = Count(found.attempts + 1, now_s + wait_s, now_s)
        self._counts.move_to_end(who)
        self._forget(now_s)

    def take_back(self, who: str) -> None:
        """Do not count an attempt that succeeded; the failures of others behind the same address still count."""
        found = self._of(who)
        if found.attempts:
            self._counts[who] = found._replace(attempts=found.attempts - 1, next_at_s=self._clock_s())

    def clear(self, who: str) -> None:
        """Forget all attempts."""
        self._counts.pop(who, None)

    def _of(self, who: str) -> Count:
        found = self._counts.get(who)
        is_known = found is not None and self._clock_s() - found.last_s < self._forget_s
        return found if found is not None and is_known else Count()

    def _forget(self, now_s: float) -> None:
        for _ in range(2):
            who = next(iter(self._counts))
            if now_s - self._counts[who].last_s < self._forget_s:
                break
            del self._counts[who]
        if len(self._counts) > self._max_known:
            self._counts.popitem(last=False)
