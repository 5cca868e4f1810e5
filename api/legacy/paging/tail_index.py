"""Unsaved records of a list: the records of all devices from cached columns; the few of one device one by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from api.legacy.paging.rank_search import Marks
from api.legacy.paging.row_blocks import SCHEMA, List, table_of
from api.legacy.paging.sort_key import key
from api.legacy.wire.serializers import Shown
from api.snapshot.snapshot import Snapshot

_NO_DEGREES = pa.scalar(None, pa.float64())
_OLDEST_FIRST = [("timestamp_us", "ascending"), ("id", "ascending")]


class Keys(Sequence[int]):
    """The keys of rows, computed on access: a binary search needs only a few."""

    def __init__(self, rows: pa.Table) -> None:
        self._us = rows.column("timestamp_us").combine_chunks()
        self._ids = rows.column("id").combine_chunks()

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...

    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        return key(self._us[at].as_py(), self._ids[at].as_py())


class Unsaved:
    """The list's unsaved records, the oldest first."""

    def __init__(self, snapshot: Snapshot, asked: List) -> None:
        self.rows = _few(snapshot, asked) if asked.device_id else _many(snapshot, asked)

    @cached_property
    def part(self) -> Marks:
        """The keys of all unsaved records."""
        count = self.rows.num_rows
        return Marks(count, Keys(self.rows), range(count))


def _few(snapshot: Snapshot, asked: List) -> pa.Table:
    records = (Shown.of(stored) for stored in snapshot.tail if asked.records.holds(stored.record.transport))
    return table_of(sorted(records, key=lambda record: (record.timestamp_us, record.id)))


def _many(snapshot: Snapshot, asked: List) -> pa.Table:
    is_http = pc.equal(snapshot.records.column("transport"), "http")
    tail = snapshot.records.filter(is_http if asked.records.is_http else pc.invert(is_http))
    us, has_no_location = tail.column("timestamp").cast(pa.int64()), pc.is_null(tail.column("location"))
    place = [pc.if_else(has_no_location, tail.column(name), _NO_DEGREES) for name in ("latitude", "longitude")]
    others = [tail.column(name) for name in ("speed_kmh", "location")]
    rows = pa.table([tail.column("device_id"), tail.column("id"), us, *place, *others], schema=SCHEMA)
    return rows.take(pc.sort_indices(rows, _OLDEST_FIRST))
