"""Records of a range in the order of day, device, timestamp and id, or without the day, sorted while they are read.

A day in one file is in that order already and is read as it is. Any other is read in slices, each of some devices next
to one another, and only a slice is sorted at once: so memory is bounded whatever the range, and the first records come
soon. What is read so goes through Arrow, since DuckDB sorts all of a statement's rows before it gives the first.

Several days device by device are read in such slices, too, each out of all days; a device with many records is read
day by day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

import duckdb
import pyarrow as pa

from api.formats.format import BATCH_ROWS
from api.snapshot.record_sql import records_in
from api.snapshot.snapshot import Snapshot, Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import COLUMNS, ORDER, days_of, sql_text
from telemetry.archive.text_bytes import TEXT_BYTES_SQL, fitting

SLICE_ROWS, SLICE_BYTES = 65_536, 2**23
"""Rows sorted at once, about 15 MB, and bytes of their texts, unless one device has more rows in a day."""

_NOTHING = COLUMNS.empty_table()


class _Day(NamedTuple):
    """What there is of a day; `tail` is in the columns of the archive."""

    files: Sequence[LiveFile]
    tail: pa.Table

    @property
    def is_sorted(self) -> bool:
        return len(self.files) == 1 and self.tail.num_rows == 0


@contextmanager
def in_order(
    connection: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    wanted: Wanted,
    is_by_device: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[str]:
    """SQL that selects a snapshot's records of `wanted` in order, all columns; good for one statement.
    `batch_rows` rows leave DuckDB at once.

    With `is_by_device` all records of a device come one after another, whatever their days.
    """
    days = _days(snapshot)
    is_by_device = is_by_device and len(days) > 1 and len(wanted.devices) != 1
    if all(day.is_sorted for day in days) and not is_by_device:
        connection.register("tail", _NOTHING)
        yield records_in([day.files[0] for day in days], wanted)
        return
    with connection.cursor() as cursor:
        statements = (_by_device if is_by_device else _by_day)(cursor, days, wanted)
        batches = _batches(cursor, statements, batch_rows)
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
    cursor: duckdb.DuckDBPyConnection, statements: Iterator[str], batch_rows: int
) -> Generator[pa.RecordBatch, None, None]:
    for sql in statements:
        with cursor.sql(sql).to_arrow_reader(batch_rows) as found:
            yield from found


def _by_day(cursor: duckdb.DuckDBPyConnection, days: Sequence[_Day], wanted: Wanted) -> Iterator[str]:
    """One for each run of days that are sorted already, one for each slice of the others."""
    for is_sorted, run in groupby(days, key=lambda day: day.is_sorted):
        if is_sorted:
            cursor.register("tail", _NOTHING)
            yield records_in([day.files[0] for day in run], wanted)
            continue
        for day in run:
            cursor.register("tail", day.tail)
            records = records_in(day.files, wanted)
            for one in _slices(cursor, records):
                yield from _sorted(cursor, records, one.devices, one.text_bytes)


def _by_device(cursor: duckdb.DuckDBPyConnection, days: Sequence[_Day], wanted: Wanted) -> Iterator[str]:
    """One for each slice of all days; of a device that has more than a slice's records, one for each of its days."""
    files, tail = [file for day in days for file in day.files], pa.concat_tables([day.tail for day in days])
    records = records_in(files, wanted)
    cursor.register("tail", tail)
    for one in _slices(cursor, records):
        if one.rows_of_first <= SLICE_ROWS:
            yield from _sorted(cursor, records, one.devices, one.text_bytes)
            continue
        yield from _days_of(cursor, days, wanted._replace(devices=(one.first,)), one.text_bytes)
        if one.first != one.last:
            cursor.register("tail", tail)
            others = f"device_id > {sql_text(one.first)} AND device_id <= {sql_text(one.last)}"
            yield from _sorted(cursor, records, others, one.text_bytes)


def _days_of(cursor: duckdb.DuckDBPyConnection, days: Sequence[_Day], wanted: Wanted, text_bytes: int) -> Iterator[str]:
    """One for each day of one device, or several."""
    for day in days:
        files = [file for file in day.files if file.may_hold(wanted.start_us, wanted.end_us, wanted.devices)]
        cursor.register("tail", day.tail)
        yield from _sorted(cursor, records_in(files, wanted), "true", text_bytes)


def _sorted(cursor: duckdb.DuckDBPyConnection, records: str, condition: str, text_bytes: int) -> Iterator[str]:
    """One for all records that fulfil a condition, or where their texts have too many bytes, several.

    Their keys are sorted alone then: a sort spills rows, but not their long texts.
    """
    some = f"SELECT * FROM ({records}) WHERE {condition}"
    order = f"ORDER BY {', '.join(ORDER)}"
    if text_bytes <= 2 * SLICE_BYTES:
        yield f"{some} {order}"
        return
    keys = cursor.sql(f"SELECT id, {TEXT_BYTES_SQL} AS text_bytes FROM ({some}) {order}").to_arrow_table()
    while keys.num_rows:
        rows = fitting(keys.column("text_bytes"), SLICE_BYTES)
        cursor.register("chosen", keys.slice(0, rows).select(["id"]))
        yield f"SELECT * FROM ({some}) SEMI JOIN chosen USING (id) {order}"
        keys = keys.slice(rows)


class _Slice(NamedTuple):
    """Devices next to one another that have some `SLICE_ROWS` records or `SLICE_BYTES` of texts together, unless the
    first has more."""

    first: str
    last: str
    rows_of_first: int
    text_bytes: int

    @property
    def devices(self) -> str:
        """SQL that holds of their records."""
        return f"device_id BETWEEN {sql_text(self.first)} AND {sql_text(self.last)}"


def _slices(cursor: duckdb.DuckDBPyConnection, records: str) -> list[_Slice]:
    counts = f"count(*) AS rows, sum({TEXT_BYTES_SQL})::BIGINT AS bytes"
    counted = f"SELECT device_id, {counts} FROM ({records}) GROUP BY device_id"
    summed = (
        "SELECT *, sum(rows) OVER in_turn AS rows_so_far, sum(bytes) OVER in_turn AS bytes_so_far "
        f"FROM ({counted}) WINDOW in_turn AS (ORDER BY device_id)"
    )
    number = f"(rows_so_far - 1) // {SLICE_ROWS} + bytes_so_far // {SLICE_BYTES}"
    found = cursor.execute(
        f"SELECT min(device_id), max(device_id), arg_min(rows, device_id), sum(bytes)::BIGINT FROM ({summed}) "
        f"GROUP BY {number} ORDER BY 1"
    ).fetchall()
    return [_Slice(*one) for one in found]
