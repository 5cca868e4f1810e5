"""Every record that was sent, when it was acknowledged or seen, and all that is found wrong."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

NEVER = float("inf")
MOST_NAMED = 20
"""Offenders that are named; all are counted."""


@dataclass(slots=True)
class Entry:
    """A record that was sent. Times are monotonic: `acked_s` that of its answer, `seen_s` of the first page with it."""

    key: str
    device_id: str
    timestamp_us: int
    number: int
    acked_s: float = NEVER
    seen_s: float = NEVER
    id: int | None = None

    def must_show(self, since_s: float) -> bool:
        """Whether whoever begins to read at `since_s` must find it: it was acknowledged, or shown, before that."""
        return self.acked_s < since_s or self.seen_s < since_s


class Row(NamedTuple):
    """A record as some reader found it."""

    key: str
    device_id: str
    timestamp_us: int
    number: int
    id: int


@dataclass(frozen=True)
class Verdict:
    """What became of all records."""

    acknowledged: int
    stored: int
    unacknowledged_stored: int
    lost: int
    doubled: int
    offenders: list[str]


class Ledger:
    """Written by senders, read by readers, at the same time.

    Records of before `kept_from_us` are of days that retention gives up: they may be gone, but never be wrong or twice.
    """

    def __init__(self, kept_from_us: int = 0) -> None:
        self.kept_from_us = kept_from_us
        self.entries: list[Entry] = []
        self.anomalies: Counter[str] = Counter()
        self.named: list[str] = []
        self._by_key: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def will_send(self, entry: Entry) -> None:
        """Write a record down, before it is sent."""
        with self._lock:
            self._by_key[entry.key] = entry
            self.entries.append(entry)

    @staticmethod
    def acknowledge(entries: Iterable[Entry]) -> None:
        """Note that an answer promised these."""
        now_s = time.monotonic()
        for entry in entries:
            entry.acked_s = min(entry.acked_s, now_s)

    def is_kept(self, entry: Entry) -> bool:
        """Whether a record is of a day that is kept."""
        return entry.timestamp_us >= self.kept_from_us

    def anomaly(self, kind: str, detail: str) -> None:
        """Note what should never be."""
        with self._lock:
            self.anomalies[kind] += 1
            if self.anomalies[kind] <= MOST_NAMED:
                self.named.append(f"{kind}: {detail}")

    def check(self, row: Row, where: str) -> Entry | None:
        """Find whose a row is. None, and an anomaly, if it is nobody's or not as it was sent."""
        entry = self._by_key.get(row.key)
        if entry is None:
            self.anomaly("foreign row", f"{where}: {row}")
            return None
        if row[1:4] != (entry.device_id, entry.timestamp_us, entry.number):
            self.anomaly("changed row", f"{where}: {row}, sent as {entry}")
            return None
        with self._lock:
            if entry.id is None:
                entry.id = row.id
        if entry.id != row.id:
            self.anomaly("another id", f"{where}: {row}, before with {entry.id}")
        return entry

    def judge(self, readings: dict[str, Sequence[Row]]) -> Verdict:
        """Hold all records against what each way of reading found."""
        counts = {name: self._counted(name, rows) for name, rows in readings.items()}
        kept = [e for e in self.entries if e.must_show(NEVER) and self.is_kept(e)]
        lost = [e for e in kept if any(found[e.key] == 0 for found in counts.values())]
        doubled = [e for e in self.entries if any(found[e.key] > 1 for found in counts.values())]
        stored = [e for e in self.entries if any(found[e.key] for found in counts.values())]
        for name, found in counts.items():
            if missing := sum(found[entry.key] == 0 for entry in stored):
                self.anomaly("ways differ", f"{name} lacks {missing} of the {len(stored)} that were stored")
        return Verdict(
            acknowledged=sum(entry.acked_s < NEVER for entry in self.entries),
            stored=len(stored),
            unacknowledged_stored=sum(entry.acked_s == NEVER for entry in stored),
            lost=len(lost),
            doubled=len(doubled),
            offenders=[
                f"{what}: {_tell(entry, counts)}"
                for what, some in (("lost", lost), ("doubled", doubled))
                for entry in some[:MOST_NAMED]
            ],
        )

    def _counted(self, name: str, rows: Sequence[Row]) -> Counter[str]:
        ids = Counter(row.id for row in rows)
        if twice := [number for number, count in ids.items() if count > 1]:
            self.anomaly("id twice", f"{name}: {len(twice)} ids, {twice[:3]}")
        return Counter(row.key for row in rows if self.check(row, name) is not None)


def _tell(entry: Entry, counts: dict[str, Counter[str]]) -> str:
    found: dict[str, Any] = {name: count[entry.key] for name, count in counts.items()}
    return f"{entry}, found {found}"
