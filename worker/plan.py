"""Which entries one save takes: the longest waiting devices first, within bounds, so that it takes seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from telemetry.config import Persist
from telemetry.days import DAY_US
from telemetry.entries import Range, RawEntry, Unreadable, behind, entry_id, entry_text, read_entry
from telemetry.hot import READ_ENTRIES, READ_STREAMS, Shard
from telemetry.record import Stored


class Bounds(NamedTuple):
    """Most records, bytes, devices and days of one save."""

    max_records: int = 200_000
    max_bytes: int = 64 * 2**20
    max_devices: int = 50_000
    max_days: int = 64

    @classmethod
    def of(cls, persist: Persist) -> Bounds:
        """Those of the settings."""
        return cls(persist.max_records, persist.max_bytes, persist.max_devices, persist.max_days)


class Tail(NamedTuple):
    """What some ranges hold: the raw entries of each, the records, and what can't be read."""

    raw: list[list[RawEntry]]
    records: list[Stored]
    unreadable: list[Unreadable]


class Plan(NamedTuple):
    """The ranges that a save takes, and what they held when it was planned."""

    ranges: list[Range]
    tail: Tail


class _Budget:
    """What is left of a save's bounds. The first entry always fits, or saving would never go on."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.records = 0
        self.bytes = 0
        self.days: set[int] = set()

    def take(self, size_bytes: int, records: list[Stored]) -> bool:
        days = self.days | {stored.record.timestamp_us // DAY_US for stored in records}
        fits = (
            self.records + len(records) <= self.bounds.max_records
            and self.bytes + size_bytes <= self.bounds.max_bytes
            and len(days) <= self.bounds.max_days
        )
        if self.bytes > 0 and not fits:
            return False
        self.records += len(records)
        self.bytes += size_bytes
        self.days = days
        return True

    @property
    def is_spent(self) -> bool:
        return self.records >= self.bounds.max_records or self.bytes >= self.bounds.max_bytes


def choose(shard: Shard, bounds: Bounds) -> Plan:
    """Read the tail, the longest waiting devices first, until it ends or a bound is reached."""
    budget = _Budget(bounds)
    plan = Plan([], Tail([], [], []))
    start = 0
    while start < bounds.max_devices and not budget.is_spent:
        devices = shard.dirty(start, min(READ_STREAMS, bounds.max_devices - start))
        if not devices:
            break
        start += len(devices)
        pages = shard.entries([(device, "-", "+") for device in devices], READ_ENTRIES)
        for device, page in zip(devices, pages, strict=True):
            _take(plan, budget, shard, device, page)
    return plan


def _take(plan: Plan, budget: _Budget, shard: Shard, device: str, first_page: list[RawEntry]) -> None:
    taken: list[RawEntry] = []
    count = 0
    for entry in _all_entries(shard, device, first_page):
        unreadable: list[Unreadable] = []
        records = read_entry(device, entry, shard.shards, unreadable.append)
        if not budget.take(sum(map(len, entry[1])), records):
            break
        taken.append(entry)
        count += len(records) + len(unreadable)
        plan.tail.records.extend(records)
        plan.tail.unreadable.extend(unreadable)
    if taken:
        plan.ranges.append(Range(device, taken[0][0].decode(), taken[-1][0].decode(), count))
        plan.tail.raw.append(taken)


def _all_entries(shard: Shard, device: str, page: list[RawEntry]) -> Iterator[RawEntry]:
    while page:
        yield from page
        if len(page) < READ_ENTRIES:
            return
        after = entry_text(behind(entry_id(page[-1][0])))
        [page] = shard.entries([(device, after, "+")], READ_ENTRIES)


def read(shard: Shard, ranges: list[Range]) -> list[list[RawEntry]]:
    """The raw entries of each range."""
    found = []
    for at in range(0, len(ranges), READ_STREAMS):
        part = ranges[at : at + READ_STREAMS]
        found += shard.entries([(r.device_id, r.first, r.last) for r in part])
    return found


def decode(shard: Shard, ranges: Iterable[Range], raw: list[list[RawEntry]]) -> Tail:
    """The records of raw entries."""
    unreadable: list[Unreadable] = []
    records = [
        stored
        for found, entries in zip(ranges, raw, strict=True)
        for entry in entries
        for stored in read_entry(found.device_id, entry, shard.shards, unreadable.append)
    ]
    return Tail(raw, records, unreadable)
