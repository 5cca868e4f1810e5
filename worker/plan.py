"""Which entries one save takes, and their records as columns: within bounds, so that it takes seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import pyarrow as pa

from telemetry.columns import Columns
from telemetry.days import DAY_US
from telemetry.entries import Block, Range, RawEntry, Unreadable, read_block
from telemetry.hot import READ_ENTRIES, Shard, Standing
from telemetry.record import Row
from telemetry.settings import Persist
from telemetry.streams import LOOK_ENTRIES, READ_STREAMS, heads, next_of, streams_at_once
from worker.pages import read_page

LOOK_RANGES = 8 * READ_STREAMS
"""Entries of which each is read by itself, in one pipeline."""

PIECE_BYTES = 100_000
"""Entries that are decoded at once: some thousand records, as many as become columns at once (columns.py)."""

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
    """What some ranges hold: their records in that order, and what can't be read."""

    records: pa.Table
    unreadable: list[Unreadable]


class Plan(NamedTuple):
    """The ranges that a save takes, what they held when it was planned, and whether that was all that waited; and how
    the shard stood before they were read."""

    ranges: list[Range]
    tail: Tail
    is_all: bool
    standing: Standing


class _Budget:
    """What is left of a save's bounds. The first entry always fits, or saving would never go on."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.records = 0
        self.bytes = 0
        self.days: set[int] = set()
        self.is_spent = False
        self.was_short = False

    def take(self, size_bytes: int, block: Block | None) -> bool:
        """Whether an entry fits; then it is taken."""
        rows = block.rows if block else ()
        if self.take_all(size_bytes, rows, needs_room=self.bytes > 0):
            return True
        has_room = self._has_room(size_bytes, len(rows))
        self.is_spent = self.is_spent or not has_room
        self.was_short = True
        return False

    def take_all(self, size_bytes: int, rows: Sequence[Row], needs_room: bool = True) -> bool:
        """Whether records of entries fit; then they are taken."""
        days = _days(rows)
        days = self.days if days <= self.days else self.days | days
        if needs_room and not (self._has_room(size_bytes, len(rows)) and len(days) <= self.bounds.max_days):
            return False
        self.records += len(rows)
        self.bytes += size_bytes
        self.days = days
        is_full = self.records >= self.bounds.max_records or self.bytes >= self.bounds.max_bytes
        self.is_spent = self.is_spent or is_full
        return True

    def _has_room(self, size_bytes: int, records: int) -> bool:
        return self.records + records <= self.bounds.max_records and self.bytes + size_bytes <= self.bounds.max_bytes


def _days(rows: Sequence[Row]) -> set[int]:
    """Which days they are of; in two fifths of the time where all are of one."""
    if not rows:
        return set()
    times_us = [row[1] for row in rows]
    first, last = min(times_us) // DAY_US, max(times_us) // DAY_US
    return {first} if first == last else {timestamp_us // DAY_US for timestamp_us in times_us}


class _Taking:
    """Takes pages of streams as they are read, and decodes as many at once as make a piece of columns."""

    def __init__(self, shards: int, bounds: Bounds) -> None:
        self.budget = _Budget(bounds)
        self.ranges: list[Range] = []
        self._shards = shards
        self._columns = Columns()
        self._unreadable: list[Unreadable] = []
        self._pages: list[tuple[str, list[RawEntry]]] = []
        self._bytes = 0
        self._full = ""  # the device of which an entry did not fit: those behind it must wait, too

    def add(self, device_id: str, page: list[RawEntry]) -> bool:
        """Take a page, if it fits, behind those of the device before. False if no more of that device can be taken."""
        self._pages.append((device_id, page))
        self._bytes += _size_bytes(page)
        if self._bytes >= PIECE_BYTES:
            self._take()
        return device_id != self._full

    def tail(self) -> Tail:
        """What was taken."""
        self._take()
        return Tail(self._columns.table(), self._unreadable)

    def _take(self) -> None:
        pages, size_bytes = self._pages, self._bytes
        self._pages, self._bytes = [], 0
        found = read_page(list(chain.from_iterable(entries for _, entries in pages)), self._shards)
        if found is None or not self.budget.take_all(size_bytes, found.rows):
            for device_id, entries in pages:
                if device_id != self._full:
                    self._take_one_by_one(device_id, entries)
            return
        sizes = iter(found.sizes)
        counts = [sum(islice(sizes, len(entries))) for _, entries in pages]
        devices = [device_id for device_id, _ in pages]
        self._columns.add_piece(devices, counts, found.arrivals_us, found.ids, found.rows)
        for (device_id, entries), count in zip(pages, counts, strict=True):
            self._note(device_id, entries, count)

    def _take_one_by_one(self, device_id: str, entries: list[RawEntry]) -> None:
        """Take entries as far as they fit."""
        count = fit = 0
        for entry in entries:
            unreadable: list[Unreadable] = []
            block = read_block(device_id, entry, self._shards, unreadable.append)
            if not self.budget.take(_size_bytes([entry]), block):
                self._full = device_id
                break
            fit += 1
            count += len(unreadable)
            self._unreadable.extend(unreadable)
            if block is not None:
                count += len(block.rows)
                self._columns.add(block)
        if fit:
            self._note(device_id, entries[:fit], count)

    def _note(self, device_id: str, entries: list[RawEntry], count: int) -> None:
        """Have a range reach over entries that were taken."""
        last = entries[-1][0].decode()
        before = self.ranges[-1] if self.ranges else None
        if before is not None and before.device_id == device_id:
            self.ranges[-1] = Range(device_id, before.first, last, before.records + count)
        else:
            first = entries[0][0].decode() if len(entries) > 1 else last
            self.ranges.append(Range(device_id, first, last, count))


def choose(shard: Shard, bounds: Bounds, oldest_first: bool = False) -> Plan:
    """Read the tail until it ends or a bound is reached.

    In the order of files, so that there is nothing to sort, if it may be taken whole; else, or with `oldest_first`, the
    longest waiting devices first: those with the last names must not wait for ever.
    """
    standing = shard.standing()
    records, count = shard.waiting()
    devices: Iterable[str] = _dirty(shard, bounds.max_devices)
    if not oldest_first and count < bounds.max_devices and records <= bounds.max_records:
        devices = sorted(devices)
    taking = _Taking(shard.shards, bounds)
    most_entries = max(LOOK_ENTRIES, min(2 * records // max(count, 1), READ_ENTRIES))
    left = iter(devices)
    while not taking.budget.is_spent and (part := list(islice(left, streams_at_once(most_entries)))):
        for device_id, page in heads(shard, part, most_entries).items():
            _take_stream(taking, shard, device_id, page, most_entries)
    tail = taking.tail()
    return Plan(taking.ranges, tail, not (taking.budget.was_short or taking.budget.is_spent), standing)


def _dirty(shard: Shard, most: int) -> Iterator[str]:
    """Devices with something to save, the longest waiting first, each once: those that come meanwhile, while the clock
    was set back, may push others on."""
    known: set[str] = set()
    start = 0
    while start < most and (found := shard.dirty(start, min(READ_NAMES, most - start))):
        yield from (device for device in found if device not in known)
        known.update(found)
        start += len(found)


def _take_stream(taking: _Taking, shard: Shard, device_id: str, page: list[RawEntry], most_entries: int) -> None:
    """Take a stream's first page, and if that is full, those behind it."""
    while page and taking.add(device_id, page) and len(page) == most_entries:
        [page] = shard.entries([(device_id, next_of(page), "+")], READ_ENTRIES)
        most_entries = READ_ENTRIES


def _size_bytes(entries: list[RawEntry]) -> int:
    return sum(sum(map(len, fields)) for _, fields in entries)


def still_holds(shard: Shard, plan: Plan) -> bool:
    """Whether the ranges hold what they held when they were read: an entry never changes, new ones come behind all
    others, and what else happens to streams changes how the shard stands (hot.py: `Standing`).

    One question, however many devices; looking at the ends of each range took a tenth of a save where each has one
    entry.
    """
    return shard.standing().streams == plan.standing.streams


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
    return Tail(columns.table(), unreadable)
