"""Metrics of a process: lock-free counters, gauges and histograms, and families of them with labels.

A counter or histogram is written by one thread, usually the event loop's. A read from another thread may see part of an
update early. metrics.py declares the families with name and meaning.
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
    """Number of events since the process began."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, number: float = 1) -> None:
        """Add `number`."""
        self.value += number

    def read(self) -> float:
        """The count."""
        return self.value


class Gauge:
    """A current value: the last one set, or the result of the callback set by `watch`."""

    __slots__ = ("_ask", "value")

    def __init__(self) -> None:
        self.value: float | None = None
        self._ask: Callable[[], float | None] | None = None

    def set(self, value: float | None) -> None:
        """Set the value; None = unknown."""
        self.value = None if value is None else float(value)

    def watch(self, ask: Callable[[], float | None]) -> None:
        """Read the value by calling `ask` from the reporter's thread, whenever it is needed."""
        self._ask = ask

    def read(self) -> float | None:
        """The current value."""
        if self._ask is not None:
            self.set(self._ask())
        return self.value


class Buckets(Struct, frozen=True, array_like=True):
    """Number of values per bucket, the last one above all bounds, and their sum."""

    counts: list[int]
    sum: float


class Histogram:
    """Distribution of values over buckets with upper bounds."""

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
        """Count the ages of items, given their times of origin, oldest first. Cheap for many items."""
        if not born_s:
            return
        bounds, counts = self.bounds, self.counts
        oldest = bisect_left(bounds, now_s - born_s[0])
        youngest = bisect_left(bounds, now_s - born_s[-1])
        done = 0
        for at in range(oldest, youngest, -1):  # only these buckets can receive values
            above = bisect_left(born_s, now_s - bounds[at - 1])  # number of items older than the bound below
            counts[at] += above - done
            done = above
        counts[youngest] += len(born_s) - done
        self.sum += len(born_s) * now_s - sum(born_s)

    @contextmanager
    def timed(self, monotonic: Callable[[], float] = time.monotonic) -> Iterator[None]:
        """Count the duration of the `with` block, s, whether it raises or not."""
        begun_s = monotonic()
        try:
            yield
        finally:
            self.observe(monotonic() - begun_s)

    def read(self) -> Buckets:
        """The counts so far."""
        return Buckets(list(self.counts), self.sum)


M = TypeVar("M", Counter, Gauge, Histogram)

Value = float | Buckets


class Family(Generic[M]):
    """Metrics of one kind with a name and meaning. `labels` are the names of the labels, each with few values; `bounds`
    are the histograms' upper bounds.
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
        """The metric with these values of the labels; created on first use."""
        member = self._members.get(values)
        if member is None:
            member = self._members[values] = self._make()
        return member

    @property
    def one(self) -> M:
        """The only metric of a family without labels."""
        return self.of()

    def read(self) -> Iterator[tuple[tuple[str, ...], Value]]:
        """Labels and value of each metric that has a value."""
        for values, member in list(self._members.items()):
            value = member.read()
            if value is not None:
                yield values, value
