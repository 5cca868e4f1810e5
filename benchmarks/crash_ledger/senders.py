"""Senders: each its own devices, its own way to the box, and a note in the ledger before and after each batch."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from benchmarks.crash_ledger.ledger import Entry, Ledger

DAYS = 4
LAST_DAYS = tuple(range(DAYS))
"""Records are of today and of the days before: late ones, whose days are merged as over."""

PAUSE_S = 0.15
ANSWER_TIMEOUT_S = 1.0
"""Shorter than most stops: answers are lost while their records are stored."""

CUT_OFF = 0.05
"""The part of the sendings behind which a device is out of reach before it has its answer."""


class Batch(NamedTuple):
    """Records that are answered together. Its number rises with each new batch of a sender."""

    number: int
    entries: Sequence[Entry]
    records: Sequence[dict[str, Any]]


class Way(Protocol):
    """How batches get to the box."""

    is_repeated: bool
    """Whether a batch without an answer is sent again: only by who names it."""

    window: int
    """Batches that are on their way at once."""

    def send(self, batches: Sequence[Batch], is_cut_off: bool) -> list[bool]:
        """Send, and tell which were acknowledged; none if the connection is cut off behind the last byte."""

    def close(self) -> None:
        """Hang up."""


Complain = Callable[[str], None]


class Sender(threading.Thread):
    """Sends until told to stop, then what is still to be repeated until that is answered or `give_up_s` comes."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        way: Way,
        rng: random.Random,
        devices: int,
        sizes: tuple[int, int],
        every_s: float,
        days: Sequence[int] = LAST_DAYS,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.give_up_s = float("inf")
        self._ledger = ledger
        self._way = way
        self._rng = rng
        self.devices = [f"{name}/{number}" for number in range(devices)]
        self._sizes = sizes
        self._every_s = every_s
        self._days = days
        self._stopping = threading.Event()
        self._pending: list[Batch] = []
        self._batches = 0
        self._records = 0

    def stop(self, give_up_s: float) -> None:
        """Make no new batch."""
        self.give_up_s = give_up_s
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set() or (self._pending and time.monotonic() < self.give_up_s):
            if not self._stopping.is_set():
                self._pending += [self._batch() for _ in range(self._way.window - len(self._pending))]
            answers = self._way.send(self._pending, is_cut_off=self._rng.random() < CUT_OFF)
            for batch, is_stored in zip(self._pending, answers, strict=True):
                if is_stored:
                    self._ledger.acknowledge(batch.entries)
            left = [batch for batch, is_stored in zip(self._pending, answers, strict=True) if not is_stored]
            self._pending = left if self._way.is_repeated else []
            self._stopping.wait(PAUSE_S if left else self._rng.uniform(0, 2 * self._every_s))
            if left and self._stopping.is_set():
                time.sleep(PAUSE_S)
        if self._pending:
            self._ledger.anomaly("never answered", f"{self.name}: {len(self._pending)} batches")
        self._way.close()

    def _batch(self) -> Batch:
        self._batches += 1
        size = self._rng.randint(*self._sizes)
        first = self._rng.randrange(len(self.devices))
        entries = [self._entry(self.devices[(first + place) % len(self.devices)]) for place in range(size)]
        for entry in entries:
            self._ledger.will_send(entry)
        return Batch(self._batches, entries, [payload(entry) for entry in entries])

    def _entry(self, device_id: str) -> Entry:
        """A record of some day; some share their second, so that pages end between equal timestamps."""
        self._records += 1
        at_us = time.time_ns() // 1_000 - self._rng.choice(self._days) * 86_400_000_000
        if self._rng.random() < 0.5:
            at_us -= at_us % 1_000_000
        return Entry(f"{self.name}#{self._records}", device_id, at_us, self._records)


def payload(entry: Entry) -> dict[str, Any]:
    """A record as a device sends it. Its key comes back as an attribute."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=entry.timestamp_us)
    return {
        "device_id": entry.device_id,
        "timestamp": at.isoformat(timespec="microseconds"),
        "altitude": entry.number,
        "lat": 53.4,
        "lon": -2.97,
        "key": entry.key,
    }
