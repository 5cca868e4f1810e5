"""Counting in a process: plain numbers that cost no lock, and families of them, told apart by labels.

A counter or a histogram belongs to one thread, mostly the event loop's; who reads it from another may see it some
additions early. The families themselves, each with its name and meaning, are in metrics.py.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct


class Counter:
    """How often, since the process began."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, number: float = 1) -> None:
        """Count `number` more."""
        self.value += number

    def read(self) -> float:
        """The count."""
        return self.value


class Gauge:
    """What is so now: the number that was set, or the one that `watch` has made it ask for."""

    __slots__ = ("_ask", "value")

    def __init__(self) -> None:
        self.value: float | None = None
        self._ask: Callable[[], float | None] | None = None

    def set(self, value: float | None) -> None:
        """Note a number; None is not known."""
        self.value = None if value is None else float(value)

    def watch(self, ask: Callable[[], float | None]) -> None:
        """From now on `ask`, from the reporter's thread, whenever somebody wants to know."""
        self._ask = ask

    def read(self) -> float | None:
        """The number now."""
        if self._ask is not None:
            self.set(self._ask())
        return self.value


class Buckets(Struct, frozen=True, array_like=True):
    """How many values were in each bucket, the last one above all bounds, and their sum."""

    counts: list[int]
    sum: float


class Histogram:
    """How many values were at most each of some bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_ages(self, born_s: Sequence[float], now_s: float) -> None:
        """Count how old each is whose birth is told, the oldest first: some 20 ns each where they are many."""
        if not born_s:
            return
        bounds, counts = self.bounds, self.counts
        oldest = bisect_left(bounds, now_s - born_s[0])
        youngest = bisect_left(bounds, now_s - born_s[-1])
        done = 0
        for at in range(oldest, youngest, -1):  # the only buckets that can be meant
            above = bisect_left(born_s, now_s - bounds[at - 1])  # so many are older than the bound below
            counts[at] += above - done
            done = above
        counts[youngest] += len(born_s) - done
        self.sum += len(born_s) * now_s - sum(born_s)

    @contextmanager
    def timed(self, monotonic: Callable[[], float] = time.monotonic) -> Iterator[None]:
        """Count how many seconds what is within took, whether it ended well or not."""
        begun_s = monotonic()
        try:
            yield
        finally:
            self.observe(monotonic() - begun_s)

    def read(self) -> Buckets:
        """What was counted."""
        return Buckets(list(self.counts), self.sum)


M = TypeVar("M", Counter, Gauge, Histogram)

Value = float | Buckets


class Family(Generic[M]):
    """Meters of one kind, name and meaning. `labels` are the names of what tells them apart, each of few values;
    `bounds` are those of histograms.
    """

    def __init__(
        self, kind: Callable[..., M], name: str, meaning: str, labels: Sequence[str] = (), bounds: Sequence[float] = ()
    ) -> None:
        self.kind: Callable[..., M] = kind
        self.name = name
        self.meaning = meaning
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)
        self._make: Callable[[], M] = partial(kind, self.bounds) if bounds else kind
        self._members: dict[tuple[str, ...], M] = {}

    def of(self, *values: str) -> M:
        """The member with these values of the labels, made when it is first asked for."""
        found = self._members.get(values)
        if found is None:
            found = self._members[values] = self._make()
        return found

    @property
    def one(self) -> M:
        """The only member of a family without labels."""
        return self.of()

    def read(self) -> Iterator[tuple[tuple[str, ...], Value]]:
        """Each member's labels and what it counted, of those that know."""
        for values, member in list(self._members.items()):
            value = member.read()
            if value is not None:
                yield values, value
