"""A page of one device's records without DuckDB: the question that is asked most, in half of the time.

What is left to DuckDB: records in an area, thinned ones, files of an older layout, pages out of very many files, and
what would have to be decoded in more memory than a question may have here. The answer is the same
(tests/api/records/test_device_page.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from api.records.row_group_reader import RowGroups, joined, plain
from api.requests.params import Position
from api.snapshot.snapshot import Snapshot, Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import LAYOUT, layout_of
from telemetry.archive.text_bytes import fitting_rows

MOST_BYTES = 2**24
"""Decoded for a page at most. It is beside `api.query_memory_bytes`, once for each of `api.query_threads`."""

MOST_FILES = 128
"""Files read for a page at most: of thousands with a record each DuckDB reads several at once, in half of the time."""


class OneDevice:
    """Reads pages, from any number of threads."""

    def __init__(self, row_groups: RowGroups | None = None) -> None:
        self._row_groups = row_groups or RowGroups()

    def page(
        self,
        snapshot: Snapshot,
        wanted: Wanted,
        after: Position | None,
        is_descending: bool,
        count: int,
        text_bytes: int,
    ) -> pa.Table | None:
        """The first `count` records of `wanted`, which names one device, behind `after`; None if DuckDB is to be asked.
        Fewer where their texts have more than `text_bytes`: the last one is the first that exceeds them.

        A file's times are all of its day, so that days are read one by one, until there are enough.
        """
        if len(wanted.devices) != 1 or wanted.where or any(layout_of(file.path) != LAYOUT for file in snapshot.files):
            return None
        try:
            archived = self._archived(snapshot.files, wanted, after, is_descending, count)
        except (OSError, pa.ArrowException):
            return None  # DuckDB says what is wrong with a file
        if archived is None:
            return None
        if snapshot.blocks:
            archived.append(_behind(snapshot.records, wanted, after, is_descending))
        return _first(archived, is_descending, count, text_bytes)

    def _archived(
        self, files: Sequence[LiveFile], wanted: Wanted, after: Position | None, is_descending: bool, count: int
    ) -> list[pa.Table] | None:
        [device_id] = wanted.devices
        found: list[pa.Table] = []
        size_bytes = count_files = 0
        for day in _days(files, is_descending):
            count_files += len(day)
            if count_files > MOST_FILES:
                return None
            size_bytes += sum(self._row_groups.size_bytes(file.path, device_id) for file in day)
            if size_bytes > MOST_BYTES:
                return None
            read = (self._row_groups.read(file.path, device_id) for file in day)
            found += [_behind(records, wanted, after, is_descending) for records in read]
            if sum(records.num_rows for records in found) >= count:
                break
        return found


def _days(files: Sequence[LiveFile], is_descending: bool) -> Iterator[list[LiveFile]]:
    day = attrgetter("day")
    for _, found in groupby(sorted(files, key=day, reverse=is_descending), day):
        yield list(found)


def _behind(records: pa.Table, wanted: Wanted, after: Position | None, is_descending: bool) -> pa.Table:
    """Those of a range that are behind the cursor."""
    us = records.column("timestamp").cast(pa.int64())
    if after is None and _are_between(us, wanted.start_us, wanted.end_us):
        return records
    kept = pc.and_(pc.greater_equal(us, wanted.start_us), pc.less(us, wanted.end_us))
    if after is not None:
        behind = pc.less if is_descending else pc.greater
        is_tied = pc.and_(pc.equal(us, after.timestamp_us), behind(records.column("id"), after.id))
        kept = pc.and_(kept, pc.or_(behind(us, after.timestamp_us), is_tied))
    return records if pc.all(kept, min_count=0).as_py() else records.filter(kept)


def _are_between(us: pa.ChunkedArray, start_us: int, end_us: int) -> bool:
    """Whether all times are in a range: of a whole day they are, which one look tells in a third of the time."""
    ends = pc.min_max(us)
    least, greatest = ends["min"].as_py(), ends["max"].as_py()
    return least is None or (start_us <= least and greatest < end_us)


def _first(parts: Sequence[pa.Table], is_descending: bool, count: int, text_bytes: int) -> pa.Table:
    """The first in the order of (timestamp, id)."""
    records = joined(parts)
    if is_descending or not _rises(records.column("timestamp")):
        direction = "descending" if is_descending else "ascending"
        order = pc.sort_indices(records, [("timestamp", direction), ("id", direction)])
        records = records.take(order.slice(0, count))
    return plain(records.slice(0, min(count, fitting_rows(records.slice(0, count), text_bytes) + 1)))


def _rises(times: pa.ChunkedArray) -> bool:
    """Whether each time is later than the one before, as one device's mostly is in a file: there is nothing to sort."""
    is_later = pc.less(times.slice(0, max(len(times) - 1, 0)), times.slice(1))
    return bool(pc.all(is_later, min_count=0).as_py())
