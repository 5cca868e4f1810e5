"""Summaries of whole hours from cached hourly sums, as dashboards request them repeatedly.

Files are sorted by device, so to find one hour DuckDB decodes the times of all rows and most other columns. Here the
hourly sums of each file are cached (rollup_cache.py), and the unsaved records are added. For figures, see
docs/decisions/0032-whole-hours.md.

DuckDB computes the other summaries: fields without hourly sums, ranges that cut an hour, files of an older layout,
files with few records per device and hour, and files whose sums do not fit in the cache. It also computes summaries of
named devices if the sums of a file are not cached yet: reading those devices is faster than computing all sums.

The results are equal (tests/api/analytics/test_hourly_rollup.py). Only the last of a mean's six decimals may differ if
the mean lies exactly between two values: rounding then depends on the order of addition, which varies in DuckDB, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.analytics.rollup_cache import RollupCache
from api.analytics.summary_sql import DIGITS, SummaryQuery
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
"""The supported fields: for each, the columns of hourly sums (rollup_cache.py) and how to aggregate them."""

MAX_ROWS = 2**22
"""Maximum rows of all files of a request: the sums of these files fit in the cache (rollup_cache.py)."""

MAX_ROUNDED = 2.0**53 / 10**DIGITS
"""Means at or above this value have no digits to round."""


class HourlyRollup:
    """Computes summaries from hourly sums. Any thread may use it."""

    def __init__(self) -> None:
        self._cache = RollupCache()

    def summaries(
        self,
        connection: duckdb.DuckDBPyConnection,
        files: Sequence[LiveFile],
        unsaved: pa.Table,
        wanted: Wanted,
        query: SummaryQuery,
        after: Place | None,
        count: int,
    ) -> pa.Table | None:
        """The first `count` summaries after `after`: `device_id`, `start_us` and the requested fields, times in µs.

        `unsaved` are the unsaved records, possibly with others. None if DuckDB must compute the summaries. Raises
        DuckDB's errors.
        """
        if not _can_use_sums(files, wanted, query):
            return None
        parts = [_tail_sums(unsaved, wanted)]
        for file in files:
            sums = self._cache.sums(connection, file.path, file.rows or 0, may_read=not wanted.devices)
            if sums is None:
                return None
            parts.append(_between(sums, wanted.start_us // HOUR_US * HOUR_US, wanted.end_us))
        chosen = [_of_devices(part, wanted, after) for part in parts]
        return _first(_aggregated(pa.concat_tables(chosen, promote_options="default"), query), after, count)


def _can_use_sums(files: Sequence[LiveFile], wanted: Wanted, query: SummaryQuery) -> bool:
    if not set(query.fields) <= FIELDS.keys() or sum(file.rows or MAX_ROWS + 1 for file in files) > MAX_ROWS:
        return False
    if query.first_us is not None and (query.every_us or 0) % HOUR_US:
        return False
    return all(layout_of(file.path) == LAYOUT and _has_whole_hours(file, wanted) for file in files)


def _has_whole_hours(file: LiveFile, wanted: Wanted) -> bool:
    """True unless a border of the range may divide an hour's records of the file."""
    begins = wanted.start_us % HOUR_US == 0 or (file.first_us is not None and wanted.start_us <= file.first_us)
    ends = wanted.end_us % HOUR_US == 0 or (file.last_us is not None and file.last_us < wanted.end_us)
    return begins and ends


def _tail_sums(unsaved: pa.Table, wanted: Wanted) -> pa.Table:
    """The unsaved records as rows of sums, one for each record."""
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


def _starts(us: pa.ChunkedArray, query: SummaryQuery) -> pa.Array:
    """The start of each time's bucket."""
    if query.first_us is None or query.every_us is None:
        return pa.repeat(query.start_us, len(us))
    numbers = pc.divide(pc.subtract(us, query.first_us), query.every_us)
    begun = pc.add(pc.multiply(numbers, query.every_us), query.first_us)
    return pc.max_element_wise(begun, pa.scalar(query.start_us))


def _aggregated(sums: pa.Table, query: SummaryQuery) -> pa.Table:
    """The summaries, in any order."""
    keys = {"device_id": sums.column("device_id"), "start_us": _starts(sums.column("us"), query)}
    wanted = {name: how for field in query.fields for name, how in FIELDS[field].items()}
    rows = pa.table(keys | {name: sums.column(name) for name in wanted}).unify_dictionaries()
    groups = rows.group_by(list(keys), use_threads=False).aggregate(list(wanted.items()))
    columns = {"device_id": groups.column("device_id").cast(pa.string()), "start_us": groups.column("start_us")}
    for field in query.fields:
        values = [groups.column(f"{name}_{how}") for name, how in FIELDS[field].items()]
        columns[field] = values[0] if len(values) == 1 else _mean(*values)
    return pa.table(columns)


def _mean(total: pa.ChunkedArray, count: pa.ChunkedArray) -> pa.ChunkedArray:
    """Rounded means as the SQL statement computes them: null if not finite."""
    means = pc.divide(total, count.cast(pa.float64()))
    means = pc.if_else(pc.is_finite(means), means, pa.scalar(None, pa.float64()))
    has_digits = pc.less(pc.abs(means), MAX_ROUNDED)
    small = pc.if_else(has_digits, means, 0.0)
    return pc.if_else(has_digits, pc.round(small, DIGITS, round_mode="half_towards_infinity"), means)


def _first(summaries: pa.Table, after: Place | None, count: int) -> pa.Table:
    """The first summaries after a place, in the order of devices and time."""
    if after is not None:
        devices, starts = summaries.column("device_id"), summaries.column("start_us")
        same = pc.and_(pc.equal(devices, after.device_id), pc.greater(starts, after.start_us))
        summaries = summaries.filter(pc.or_(pc.greater(devices, after.device_id), same))
    return summaries.sort_by([("device_id", "ascending"), ("start_us", "ascending")]).slice(0, count)
