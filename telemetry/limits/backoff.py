"""Exponential backoff after failed attempts, per owner (an address or a name). Pure; the clock is an argument.

After `free` attempts the next one must wait `FIRST_WAIT_S`. Each further wait is twice as long, up to `max_wait_s`.
Attempts are counted before their outcome is known, so that concurrent attempts gain nothing. A success takes its own
attempt back, or clears the count. An owner without an attempt for `forget_s` is forgotten, and beyond `max_known`
owners the one with the oldest last attempt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

FIRST_WAIT_S = 4.0


class Count(NamedTuple):
    """Attempts of an owner; earliest next attempt and last attempt in seconds of the clock."""

    attempts: int = 0
    next_at_s: float = 0.0
    last_s: float = 0.0


class Backoff:
    """Counts attempts per owner."""

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

    def wait_s(self, owner: str) -> float:
        """Seconds until the next attempt is allowed; 0 = now."""
        return max(0.0, self._of(owner).next_at_s - self._clock_s())

    def begin(self, owner: str) -> None:
        """Count an attempt that is allowed."""
        now_s, count = self._clock_s(), self._of(owner)
        over = count.attempts + 1 - self._free
        wait_s = 0.0 if over < 0 else min(self._max_wait_s, FIRST_WAIT_S * 2.0 ** min(over, 60))
        self._counts[owner] = Count(count.attempts + 1, now_s + wait_s, now_s)
        self._counts.move_to_end(owner)
        self._forget(now_s)

    def take_back(self, owner: str) -> None:
        """Remove an attempt that succeeded; failures of other clients at the same address still count."""
        count = self._of(owner)
        if count.attempts:
            self._counts[owner] = count._replace(attempts=count.attempts - 1, next_at_s=self._clock_s())

    def clear(self, owner: str) -> None:
        """Forget all attempts of an owner."""
        self._counts.pop(owner, None)

    def _of(self, owner: str) -> Count:
        count = self._counts.get(owner)
        is_known = count is not None and self._clock_s() - count.last_s < self._forget_s
        return count if count is not None and is_known else Count()

    def _forget(self, now_s: float) -> None:
        for _ in range(2):
            owner = next(iter(self._counts))
            if now_s - self._counts[owner].last_s < self._forget_s:
                break
            del self._counts[owner]
        if len(self._counts) > self._max_known:
            self._counts.popitem(last=False)
