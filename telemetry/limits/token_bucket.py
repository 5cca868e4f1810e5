"""Token buckets: rate limits with bursts, per owner. Pure; the clock is an argument.

A bucket has up to `burst` tokens and refills at `per_s`. If tokens are missing, the caller learns how long to wait.
Only the time at which a bucket is full again is stored; a full bucket equals an unused one and is forgotten. Beyond
`max_buckets` the least recently used one is dropped early, which refills it. An attacker would need as many addresses
or keys as there may be buckets to use that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

TOLERANCE = 1e-6
"""Fraction of a token that may be missing because of floating-point rounding."""


class Rate(NamedTuple):
    """Tokens per second, and the maximum that may be taken at once. A rate of 0 = no limit."""

    per_s: float
    burst: float

    @classmethod
    def of(cls, per_s: float, burst: float) -> Rate:
        """A burst of 0 means the tokens of one second, at least one."""
        return cls(per_s, burst or max(per_s, 1.0))


class Level(NamedTuple):
    """Tokens left in a bucket, negative if it is in debt, and seconds until it is full."""

    left: float
    full_in_s: float


class Buckets:
    """The buckets of one rate, by owner."""

    def __init__(self, rate: Rate, max_buckets: int, clock_s: Callable[[], float]) -> None:
        self.rate = rate
        self._max_buckets = max_buckets
        self._clock_s = clock_s
        self._start_s = clock_s()  # times relative to this stay small, which keeps floats precise
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, owner: str, amount: float = 1.0) -> float:
        """Take tokens if there are enough. Returns the seconds to wait; 0 = taken."""
        wait_s = self.wait_s(owner, amount)
        if wait_s == 0.0:
            self.spend(owner, amount)
        return wait_s

    def wait_s(self, owner: str, amount: float = 1.0) -> float:
        """Seconds until there are enough tokens. More than a burst may be taken from a full bucket."""
        now_s = self._now_s()
        full_at_s = self._full_at_s.get(owner, now_s)
        missing = (full_at_s - now_s) * self.rate.per_s + min(amount, self.rate.burst) - self.rate.burst
        return missing / self.rate.per_s if missing > TOLERANCE else 0.0

    def spend(self, owner: str, amount: float = 1.0) -> None:
        """Take tokens even if there are not enough; later calls wait for the debt."""
        now_s = self._now_s()
        full_at_s = max(self._full_at_s.get(owner, now_s), now_s)
        self._full_at_s[owner] = full_at_s + amount / self.rate.per_s
        self._full_at_s.move_to_end(owner)
        self._forget(now_s)

    def level(self, owner: str) -> Level:
        """The state of a bucket."""
        full_in_s = max(0.0, self._full_at_s.get(owner, 0.0) - self._now_s())
        return Level(self.rate.burst - full_in_s * self.rate.per_s, full_in_s)

    def _now_s(self) -> float:
        return self._clock_s() - self._start_s

    def _forget(self, now_s: float) -> None:
        """Drop the oldest full buckets, two for each new one, and one more beyond the maximum."""
        for owner in list(islice(self._full_at_s, 2)):  # empty if no token was ever taken
            if self._full_at_s[owner] > now_s:
                break
            del self._full_at_s[owner]
        if len(self._full_at_s) > self._max_buckets:
            self._full_at_s.popitem(last=False)
