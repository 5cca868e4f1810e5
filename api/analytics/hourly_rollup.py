"""Summaries by whole hours out of sums that are remembered: the question that dashboards ask again and again.

An hour of a thousand devices, count and mean speed, out of a day of a million records and a tail of 19,000, took DuckDB
20 ms of CPU: files are in the order of devices, so that it decodes the times of all rows, and most of what they have,
to find the hour. What a file's hours add up to is remembered here (rollup_cache.py), and what is in the tail is added.

What is left to DuckDB: fields that are not added up, ranges that cut an hour, files of an older layout, with few
records an hour, or with so many that their sums would not stay; and named devices, of which it reads less than all sums
would take, until somebody asks for all. The answer is the same (tests/api/analytics/test_hourly_rollup.py),
but for the last of a mean's six digits where the mean lies in the middle between two: there it depends on the order of
adding, as with DuckDB, whose threads have none.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.analytics.rollup_cache import Hours
from api.analytics.summary_sql import DIGITS, Asked
from api.requests.params import Place
from api.snapshot.snapshot import Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import LAYOUT, TIME, layout_of
from telemetry.model.utc import HOUR_US

FIELDS = {
    "count": {"records": "sum"},
    "first": {"first": "min"},
    "last": {"last": "max"},
    "speed_kmh_mean": {"speed_sum": "sum", "speeds": "sum"},
    "speed_kmh_max": {"speed_max": "max"},
}
"""The fields that are told, and which sums of hours (rollup_cache.py) they are made of."""

MOST_ROWS = 2**22
"""Of the files that a question is about: what is remembered of so many has room (rollup_cache.py), and is added up in
0.2 s."""

MOST_ROUNDED = 2.0**53 / 10**DIGITS
"""A mean from which on there are no digits to round."""


class WholeHours:
    """Makes summaries, from any number of threads."""

    def __init__(self) -> None:
        self._hours = Hours()

    def summaries(
        self,
        connection: duckdb.DuckDBPyConnection,
        files: Sequence[LiveFile],
        unsaved: pa.Table,
        wanted: Wanted,
        asked: Asked,
        after: Place | None,
        count: int,
    ) -> pa.Table | None:
        """The first `count` summaries behind `after`: `device_id`, `start_us` and the fields asked for, moments in µs.

        `unsaved` are the tail's records, and maybe others. None if DuckDB is to be asked. Raises what that raises.
        """
        if not _may_add_up(files, wanted, asked):
            return None
        parts = [_tail_sums(unsaved, wanted)]
        for file in files:
            sums = self._hours.of(connection, file.path, file.rows or 0, may_read=not wanted.devices)
            if sums is None:
                return None
            parts.append(_between(sums, wanted.start_us // HOUR_US * HOUR_US, wanted.end_us))
        chosen = [_of_devices(part, wanted, after) for part in parts]
        return _first(_added_up(pa.concat_tables(chosen, promote_options="default"), asked), after, count)


def _may_add_up(files: Sequence[LiveFile], wanted: Wanted, asked: Asked) -> bool:
    if not set(asked.fields) <= FIELDS.keys() or sum(file.rows or MOST_ROWS + 1 for file in files) > MOST_ROWS:
        return False
    if asked.first_us is not None and (asked.every_us or 0) % HOUR_US:
        return False
    return all(layout_of(file.path) == LAYOUT and _has_whole_hours(file, wanted) for file in files)


def _has_whole_hours(file: LiveFile, wanted: Wanted) -> bool:
    """Whether the range neither begins nor ends within an hour of which the file may have records on both sides."""
    begins = wanted.start_us % HOUR_US == 0 or (file.first_us is not None and wanted.start_us <= file.first_us)
    ends = wanted.end_us % HOUR_US == 0 or (file.last_us is not None and file.last_us < wanted.end_us)
    return begins and ends


def _tail_sums(unsaved: pa.Table, wanted: Wanted) -> pa.Table:
    """Of each of the tail's records what it adds, as an hour's sums have it."""
    us = unsaved.column("timestamp").cast(TIME).cast(pa.int64())
    columns = {
        "device_id": unsaved.column("device_id"),
        "us": us,
        "records": pa.repeat(1, len(us)),
        "first": us,
        "last": us,
    }
    if "speed_kmh" in unsaved.column_names:
        speeds = unsaved.column("speed_kmh")
        columns |= {"speeds": pc.is_valid(speeds).cast(pa.int64()), "speed_sum": speeds, "speed_max": speeds}
    return _between(pa.table(columns), wanted.start_us, wanted.end_us)


def _between(sums: pa.Table, start_us: int, end_us: int) -> pa.Table:
    us = sums.column("us")
    return sums.filter(pc.and_(pc.greater_equal(us, start_us), pc.less(us, end_us)))


def _of_devices(sums: pa.Table, wanted: Wanted, after: Place | None) -> pa.Table:
    if wanted.devices:
        named = pa.array(wanted.devices, pa.string())
        sums = sums.filter(pc.is_in(sums.column("device_id").cast(pa.string()), named))
    if wanted.prefix:
        sums = sums.filter(pc.starts_with(sums.column("device_id").cast(pa.string()), wanted.prefix))
    if after is not None:
        sums = sums.filter(pc.greater_equal(sums.column("device_id").cast(pa.string()), after.device_id))
    return sums


def _starts(us: pa.ChunkedArray, asked: Asked) -> pa.Array:
    """When each moment's bucket begins."""
    if asked.first_us is None or asked.every_us is None:
        return pa.repeat(asked.start_us, len(us))
    numbers = pc.divide(pc.subtract(us, asked.first_us), asked.every_us)
    begun = pc.add(pc.multiply(numbers, asked.every_us), asked.first_us)
    return pc.max_element_wise(begun, pa.scalar(asked.start_us))


def _added_up(sums: pa.Table, asked: Asked) -> pa.Table:
    """Summaries, in any order."""
    keys = {"device_id": sums.column("device_id"), "start_us": _starts(sums.column("us"), asked)}
    wanted = {name: how for field in asked.fields for name, how in FIELDS[field].items()}
    rows = pa.table(keys | {name: sums.column(name) for name in wanted}).unify_dictionaries()
    made = rows.group_by(list(keys), use_threads=False).aggregate(list(wanted.items()))
    found = {"device_id": made.column("device_id").cast(pa.string()), "start_us": made.column("start_us")}
    for field in asked.fields:
        values = [made.column(f"{name}_{how}") for name, how in FIELDS[field].items()]
        found[field] = values[0] if len(values) == 1 else _mean(*values)
    return pa.table(found)


def _mean(total: pa.ChunkedArray, count: pa.ChunkedArray) -> pa.ChunkedArray:
    """As the statement has it: null beyond all numbers."""
    means = pc.divide(total, count.cast(pa.float64()))
    means = pc.if_else(pc.is_finite(means), means, pa.scalar(None, pa.float64()))
    has_digits = pc.less(pc.abs(means), MOST_ROUNDED)
    small = pc.if_else(has_digits, means, 0.0)
    return pc.if_else(has_digits, pc.round(small, DIGITS, round_mode="half_towards_infinity"), means)


def _first(summaries: pa.Table, after: Place | None, count: int) -> pa.Table:
    """The first behind a place, in the order of devices and time."""
    if after is not None:
        devices, starts = summaries.column("device_id"), summaries.column("start_us")
        same = pc.and_(pc.equal(devices, after.device_id), pc.greater(starts, after.start_us))
        summaries = summaries.filter(pc.or_(pc.greater(devices, after.device_id), same))
    return summaries.sort_by([("device_id", "ascending"), ("start_us", "ascending")]).slice(0, count)
