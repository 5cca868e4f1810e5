"""Token buckets: how often somebody may do something, with bursts. Pure; the clock is an argument.

A bucket holds `burst` tokens and fills at `per_s`. Who takes one that isn't there is told how long to wait for it.
Of each bucket only the moment is kept at which it is full again; one that is full is like one that never was, so it is
forgotten. There are never more than `max_buckets`: beyond, the one that was used longest ago is forgotten early, which
gives its owner a full one. Whoever wants that needs as many addresses, or keys, as there may be buckets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

TOLERANCE = 1e-6
"""Part of a token that may be missing for no better reason than how floats are rounded."""


class Rate(NamedTuple):
    """Tokens a second, and tokens that may be taken at once. A rate of 0 is no limit."""

    per_s: float
    burst: float

    @classmethod
    def of(cls, per_s: float, burst: float) -> Rate:
        """A burst of 0 is what comes in a second, at least one."""
        return cls(per_s, burst or max(per_s, 1.0))


class Level(NamedTuple):
    """How a bucket stands: tokens that are left, less than 0 if it is in debt, and seconds until it is full."""

    left: float
    full_in_s: float


class Buckets:
    """The buckets of one rate, each known by a text."""

    def __init__(self, rate: Rate, max_buckets: int, clock_s: Callable[[], float]) -> None:
        self.rate = rate
        self._max_buckets = max_buckets
        self._clock_s = clock_s
        self._start_s = clock_s()  # small numbers are exact ones
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, who: str, amount: float = 1.0) -> float:
        """Take tokens if they are there; else none. Returns the seconds to wait, 0 if they were taken."""
        wait_s = self.wait_s(who, amount)
        if wait_s == 0.0:
            self.spend(who, amount)
        return wait_s

    def wait_s(self, who: str, amount: float = 1.0) -> float:
        """Seconds until so many tokens are there. More than the bucket holds may be taken when it is full."""
        now_s = self._now_s()
        full_at_s = self._full_at_s.get(who, now_s)
        missing = (full_at_s - now_s) * self.rate.per_s + min(amount, self.rate.burst) - self.rate.burst
        return missing / self.rate.per_s if missing > TOLERANCE else 0.0

    def spend(self, who: str, amount: float = 1.0) -> None:
        """Take tokens though they may not be there: what is owed is waited for later."""
        now_s = self._now_s()
        full_at_s = max(self._full_at_s.get(who, now_s), now_s)
        self._full_at_s[who] = full_at_s + amount / self.rate.per_s
        self._full_at_s.move_to_end(who)
        self._forget(now_s)

    def level(self, who: str) -> Level:
        """How a bucket stands."""
        full_in_s = max(0.0, self._full_at_s.get(who, 0.0) - self._now_s())
        return Level(self.rate.burst - full_in_s * self.rate.per_s, full_in_s)

    def _now_s(self) -> float:
        return self._clock_s() - self._start_s

    def _forget(self, now_s: float) -> None:
        """Drop the oldest that are full, two for each that may have come, and one more if there are too many."""
        for who in list(islice(self._full_at_s, 2)):  # none, if nothing was ever spent: a request without records
            if self._full_at_s[who] > now_s:
                break
            del self._full_at_s[who]
        if len(self._full_at_s) > self._max_buckets:
            self._full_at_s.popitem(last=False)
