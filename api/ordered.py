"""Records of a range in the order of day, device, timestamp and id, sorted while they are read.

A day in one file is in that order already and is read as it is. Any other is read in slices, each of some devices next
to one another, and only a slice is sorted at once: so memory is bounded whatever the range, and the first records come
soon. What is read so goes through Arrow, since DuckDB sorts all of a statement's rows before it gives the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

import duckdb
import pyarrow as pa

from api.history import records_in
from api.snapshot import Snapshot, Wanted
from telemetry.columns import COLUMNS, days_of, sql_text
from telemetry.data_files import LiveFile

SLICE_ROWS = 65_536
"""Rows sorted at once, about 15 MB, unless one device has more in a day."""

_BATCH_ROWS = 8_192
_NOTHING = COLUMNS.empty_table()


class _Day(NamedTuple):
    """What there is of a day; `tail` is in the columns of the archive."""

    files: Sequence[LiveFile]
    tail: pa.Table

    @property
    def is_sorted(self) -> bool:
        return len(self.files) == 1 and self.tail.num_rows == 0


@contextmanager
def in_order(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, wanted: Wanted) -> Iterator[str]:
    """SQL that selects a snapshot's records of `wanted` in order, all columns; good for one statement."""
    days = _days(snapshot)
    if all(day.is_sorted for day in days):
        connection.register("tail", _NOTHING)
        yield records_in([day.files[0] for day in days], wanted)
        return
    with connection.cursor() as cursor:
        batches = _batches(cursor, days, wanted)
        connection.register("sorted", pa.RecordBatchReader.from_batches(COLUMNS, batches))
        try:
            yield "SELECT * FROM sorted"
        finally:
            connection.unregister("sorted")
            batches.close()


def _days(snapshot: Snapshot) -> list[_Day]:
    tails = dict(days_of(snapshot.records))
    files = defaultdict(list)
    for file in snapshot.files:
        files[file.day].append(file)
    return [_Day(files[day], tails.get(day, _NOTHING)) for day in sorted({*files, *tails})]


def _batches(
    cursor: duckdb.DuckDBPyConnection, days: Sequence[_Day], wanted: Wanted
) -> Generator[pa.RecordBatch, None, None]:
    for sql in _statements(cursor, days, wanted):
        with cursor.sql(sql).to_arrow_reader(_BATCH_ROWS) as found:
            yield from found


def _statements(cursor: duckdb.DuckDBPyConnection, days: Sequence[_Day], wanted: Wanted) -> Iterator[str]:
    """One for each run of days that are sorted already, one for each slice of the others."""
    for is_sorted, run in groupby(days, key=lambda day: day.is_sorted):
        if is_sorted:
            cursor.register("tail", _NOTHING)
            yield records_in([day.files[0] for day in run], wanted)
            continue
        for day in run:
            cursor.register("tail", day.tail)
            yield from _slices(cursor, records_in(day.files, wanted))


def _slices(cursor: duckdb.DuckDBPyConnection, records: str) -> Iterator[str]:
    """Statements that select a day's records, each those of devices with some `SLICE_ROWS` records together."""
    counted = f"SELECT device_id, sum(count(*)) OVER (ORDER BY device_id) AS so_far FROM ({records}) GROUP BY device_id"
    ends = cursor.execute(
        f"SELECT min(device_id), max(device_id) FROM ({counted}) GROUP BY (so_far - 1) // {SLICE_ROWS} ORDER BY 1"
    ).fetchall()
    for first, last in ends:
        between = f"device_id BETWEEN {sql_text(first)} AND {sql_text(last)}"
        yield f"SELECT * FROM ({records}) WHERE {between} ORDER BY device_id, timestamp, id"
