"""Which entries one save takes, and their records as columns: within bounds, so that it takes seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from telemetry.columns import Columns
from telemetry.days import DAY_US
from telemetry.entries import Block, Range, RawEntry, Unreadable, behind, entry_id, entry_text, read_block
from telemetry.hot import READ_ENTRIES, READ_STREAMS, Shard
from telemetry.record import Row
from telemetry.settings import Persist
from worker.pages import read_page

LOOK_ENTRIES = 8 * READ_STREAMS
"""Entries of which each is read by itself, in one pipeline."""

READ_NAMES = 2_000
"""Names of devices that are read at once: a fifth of a millisecond of Redis's time."""


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
    """What some ranges hold: the raw entries of each, their records in that order, and what can't be read."""

    raw: list[list[RawEntry]]
    records: pa.Table
    unreadable: list[Unreadable]


class Plan(NamedTuple):
    """The ranges that a save takes, what they held when it was planned, and whether that was all that waited."""

    ranges: list[Range]
    tail: Tail
    is_all: bool


class _Budget:
    """What is left of a save's bounds. The first entry always fits, or saving would never go on."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.records = 0
        self.bytes = 0
        self.days: set[int] = set()
        self.was_short = False

    def take(self, size_bytes: int, block: Block | None) -> bool:
        """Whether an entry fits; then it is taken."""
        rows = block.rows if block else ()
        if self.take_all(size_bytes, rows, needs_room=self.bytes > 0):
            return True
        self.was_short = True
        return False

    def take_all(self, size_bytes: int, rows: Sequence[Row], needs_room: bool = True) -> bool:
        """Whether records of entries fit; then they are taken."""
        days = {row[1] // DAY_US for row in rows}
        days = self.days if days <= self.days else self.days | days
        fits = (
            self.records + len(rows) <= self.bounds.max_records
            and self.bytes + size_bytes <= self.bounds.max_bytes
            and len(days) <= self.bounds.max_days
        )
        if needs_room and not fits:
            return False
        self.records += len(rows)
        self.bytes += size_bytes
        self.days = days
        return True

    @property
    def is_spent(self) -> bool:
        return self.records >= self.bounds.max_records or self.bytes >= self.bounds.max_bytes


class _Taken(NamedTuple):
    """What a plan takes so far."""

    ranges: list[Range]
    raw: list[list[RawEntry]]
    columns: Columns
    unreadable: list[Unreadable]


def choose(shard: Shard, bounds: Bounds, oldest_first: bool = False) -> Plan:
    """Read the tail until it ends or a bound is reached.

    In the order of files, so that there is nothing to sort, if it may be taken whole; else, or with `oldest_first`, the
    longest waiting devices first: those with the last names must not wait for ever.
    """
    devices = _dirty(shard, bounds.max_devices)
    if not oldest_first and len(devices) < bounds.max_devices and shard.unsaved() <= bounds.max_records:
        devices.sort()
    budget = _Budget(bounds)
    taken = _Taken([], [], Columns(), [])
    for at in range(0, len(devices), READ_STREAMS):
        part = devices[at : at + READ_STREAMS]
        pages = shard.entries([(device, "-", "+") for device in part], READ_ENTRIES)
        for device, page in zip(part, pages, strict=True):
            _take(taken, budget, shard, device, page)
        if budget.is_spent:
            break
    tail = Tail(taken.raw, taken.columns.table(), taken.unreadable)
    return Plan(taken.ranges, tail, is_all=not (budget.was_short or budget.is_spent))


def _dirty(shard: Shard, most: int) -> list[str]:
    devices: list[str] = []
    while len(devices) < most:
        found = shard.dirty(len(devices), min(READ_NAMES, most - len(devices)))
        if not found:
            break
        devices += found
    return devices


def _take(taken: _Taken, budget: _Budget, shard: Shard, device: str, first_page: list[RawEntry]) -> None:
    entries: list[RawEntry] = []
    count = 0
    for page in _pages(shard, device, first_page):
        fit, records = _take_page(taken, budget, shard.shards, device, page)
        entries += page[:fit]
        count += records
        if fit < len(page):
            break
    if entries:
        taken.ranges.append(Range(device, entries[0][0].decode(), entries[-1][0].decode(), count))
        taken.raw.append(entries)


def _pages(shard: Shard, device: str, page: list[RawEntry]) -> Iterator[list[RawEntry]]:
    while page:
        yield page
        if len(page) < READ_ENTRIES:
            return
        after = entry_text(behind(entry_id(page[-1][0])))
        [page] = shard.entries([(device, after, "+")], READ_ENTRIES)


def _take_page(taken: _Taken, budget: _Budget, shards: int, device: str, entries: list[RawEntry]) -> tuple[int, int]:
    """Take entries as far as they fit; how many did, and how many records those have."""
    page = read_page(entries, shards)
    if page is None or not budget.take_all(_size_bytes(entries), page.rows):
        return _take_one_by_one(taken, budget, shards, device, entries)
    taken.columns.add_rows(device, page.arrivals_us, page.ids, page.rows)
    return len(entries), len(page.rows)


def _take_one_by_one(
    taken: _Taken, budget: _Budget, shards: int, device: str, entries: list[RawEntry]
) -> tuple[int, int]:
    count = 0
    for number, entry in enumerate(entries):
        unreadable: list[Unreadable] = []
        block = read_block(device, entry, shards, unreadable.append)
        if not budget.take(_size_bytes([entry]), block):
            return number, count
        count += len(unreadable)
        taken.unreadable.extend(unreadable)
        if block is not None:
            count += len(block.rows)
            taken.columns.add(block)
    return len(entries), count


def _size_bytes(entries: list[RawEntry]) -> int:
    return sum(sum(map(len, fields)) for _, fields in entries)


def is_there(shard: Shard, plan: Plan) -> bool:
    """Whether the ranges still hold what they held: their first and their last entries are the same, byte for byte.

    So is all between: an entry never changes, new ones come behind all others, and the oldest go first, or all do. It
    takes a tenth of what reading all of them again does where a device has twenty, and as much where it has one.
    """
    ends = _ends(plan)
    while part := list(islice(ends, LOOK_ENTRIES)):
        if shard.entries([where for where, _ in part]) != [[entry] for _, entry in part]:
            return False
    return True


def _ends(plan: Plan) -> Iterator[tuple[tuple[str, str, str], RawEntry]]:
    """Where the first and the last entry of each range are, and what they were."""
    for held, raw in zip(plan.ranges, plan.tail.raw, strict=True):
        yield (held.device_id, held.first, held.first), raw[0]
        if len(raw) > 1:
            yield (held.device_id, held.last, held.last), raw[-1]


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
    columns = Columns()
    for found, entries in zip(ranges, raw, strict=True):
        for entry in entries:
            block = read_block(found.device_id, entry, shard.shards, unreadable.append)
            if block is not None:
                columns.add(block)
    return Tail(raw, columns.table(), unreadable)
