"""Summaries by whole hours without DuckDB: how many records each device has, and how fast it was; in half of the time.

An hour of a thousand devices, out of a day of a million records and a tail of 19,000, took DuckDB 22 ms of CPU: it
decodes the times of all rows to find the hour, their devices, and what is asked for. Which rows have the hour is
remembered here (file_hours.py), so that only the speeds are decoded, in two threads: 11 ms.

What is left to DuckDB: fields that need more than a record's hour, ranges that begin or end within one, files of an
older layout or with few rows a run, and questions about so many rows that they would have to be interrupted, or about
so great a part of them that DuckDB's two threads are through with it sooner.
The answer is the same (tests/api/test_whole_hours.py), but for the last of a mean's six digits where what is added up
lies between two: there it depends on the order of adding, as with DuckDB, whose threads have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from api.file_hours import HOUR_US, FileHours, Hours
from api.params import Place
from api.snapshot import Wanted
from api.summary_sql import DIGITS, Asked
from telemetry.columns import LAYOUT, TIME, layout_of
from telemetry.data_files import LiveFile

FIELDS = {
    "count": ("start_us", "count"),
    "speed_kmh_mean": ("speed_kmh", "mean"),
    "speed_kmh_max": ("speed_kmh", "max"),
}
"""The fields that are told, and what they are of the records of a device and a bucket."""

MOST_ROWS = 2**22
"""Of the files that a question is about: they take 50 ms, and what is remembered of them has room."""

PART = 4
"""A greater part of the rows than one in so many DuckDB adds up in less time: a whole million in 25 ms of CPU, not 45.
So no more than 20 MB are held here, beside `api.query_memory_bytes`."""

MOST_ROUNDED = 2.0**53 / 10**DIGITS
"""A mean from which on there are no digits to round."""

PIECE_ROWS = 2**17
"""Decoded at once at most, and so more than a row group has."""


class WholeHours:
    """Reads summaries, from any number of threads."""

    def __init__(self) -> None:
        self._hours = Hours()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hours")

    def summaries(
        self,
        files: Sequence[LiveFile],
        unsaved: pa.Table,
        wanted: Wanted,
        asked: Asked,
        after: Place | None,
        count: int,
    ) -> pa.Table | None:
        """The first `count` summaries behind `after`: `device_id`, `start_us` and the fields asked for.

        `unsaved` are the tail's records, and maybe others. None if DuckDB is to be asked.
        """
        if not _may_read(files, wanted, asked):
            return None
        try:
            known = [self._hours.of(file.path) for file in files]
            if not all(file.is_worth_it for file in known):
                return None
            chosen = [_Chosen(file, wanted, after) for file in known]
            if PART * sum(one.count for one in chosen) > sum(file.footer.num_rows for file in known):
                return None
            found = [self._read(one, asked) for one in chosen]
        except (OSError, pa.ArrowException):
            return None  # DuckDB says what is wrong with a file
        records = pa.concat_tables([*found, _of_tail(unsaved, wanted, asked, after)], promote_options="default")
        return _first(_added_up(records, asked), after, count)

    def _read(self, chosen: _Chosen, asked: Asked) -> pa.Table:
        """The device and bucket of the records that are wanted of a file, and the speed if it is asked for."""
        columns = {"device_id": chosen.devices, "start_us": _starts(chosen.hours_us, asked)}
        if "speed_kmh" in asked.columns:
            columns["speed_kmh"] = self._values(chosen, "speed_kmh")
        return pa.table(columns)

    def _values(self, chosen: _Chosen, name: str) -> pa.ChunkedArray:
        """A column of the rows wanted. A thread decodes beside this one, unless it has something else to do."""
        groups = chosen.groups()
        found: list[list[pa.Array]] = [[] for _ in groups]
        rest = iter(enumerate(groups))

        def decode() -> None:
            with pa.OSFile(chosen.file.path) as file:
                reader = chosen.file.opened(file)
                for place, (group, mask) in rest:
                    at = 0
                    for piece in reader.iter_batches(PIECE_ROWS, [group], [name], use_threads=False):
                        found[place].append(piece.column(0).filter(mask.slice(at, piece.num_rows)))
                        at += piece.num_rows

        beside = self._pool.submit(decode)
        decode()
        if not beside.cancel():
            beside.result()
        return pa.chunked_array([values for parts in found for values in parts], pa.float64())


def _may_read(files: Sequence[LiveFile], wanted: Wanted, asked: Asked) -> bool:
    rows = sum(file.rows or MOST_ROWS + 1 for file in files)
    if not set(asked.fields) <= FIELDS.keys() or rows > MOST_ROWS:
        return False
    if not (wanted.devices or wanted.prefix) and PART * sum(_about(file, wanted) for file in files) > rows:
        return False
    if asked.first_us is not None and (asked.every_us or 0) % HOUR_US:
        return False
    return all(layout_of(file.path) == LAYOUT and _has_whole_hours(file, wanted) for file in files)


def _about(file: LiveFile, wanted: Wanted) -> float:
    """How many of a file's records are of a range, if each hour has as many: enough to leave the file alone."""
    if file.rows is None or file.first_us is None or file.last_us is None:
        return 0
    first_us, last_us = max(file.first_us, wanted.start_us), min(file.last_us, wanted.end_us)
    return file.rows * (last_us - first_us) / max(file.last_us - file.first_us, 1)


def _has_whole_hours(file: LiveFile, wanted: Wanted) -> bool:
    """Whether the range neither begins nor ends within an hour of which the file may have records on both sides."""
    begins = wanted.start_us % HOUR_US == 0 or (file.first_us is not None and wanted.start_us <= file.first_us)
    ends = wanted.end_us % HOUR_US == 0 or (file.last_us is not None and file.last_us < wanted.end_us)
    return begins and ends


class _Chosen:
    """The rows of a file that a question is about."""

    def __init__(self, file: FileHours, wanted: Wanted, after: Place | None) -> None:
        self.file = file
        first, behind = wanted.start_us // HOUR_US, -(-wanted.end_us // HOUR_US)
        runs = pc.and_(pc.greater_equal(file.hour, first), pc.less(file.hour, behind))
        devices = _are_wanted(file.devices, wanted, after)
        if devices is not None:
            runs = pc.and_(runs, devices.take(file.device))
        self._runs = runs
        self._ends = pc.cumulative_sum(file.rows.filter(runs))
        self.count: int = self._ends[-1].as_py() if len(self._ends) else 0

    def _of_rows(self, values: pa.Array) -> pa.Array:
        """What the runs have, for each of their rows."""
        return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(self._ends, values.filter(self._runs)))

    @property
    def devices(self) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(self._of_rows(self.file.device), self.file.devices)

    @property
    def hours_us(self) -> pa.Array:
        """When each row's hour begins."""
        return self._of_rows(pc.multiply(self.file.hour.cast(pa.int64()), HOUR_US))

    def groups(self) -> list[tuple[int, pa.BooleanArray]]:
        """The row groups that have any, and which of their rows."""
        mask = pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(self.file.ends, self._runs))
        found = ((number, mask.slice(first, rows)) for number, first, rows in self.file.groups())
        return [(number, part) for number, part in found if part.true_count]


def _are_wanted(devices: pa.Array, wanted: Wanted, after: Place | None) -> pa.BooleanArray | None:
    """Which devices a question is about; None: all."""
    found = list(_conditions(devices, wanted, after))
    if not found:
        return None
    first, *others = found
    for one in others:
        first = pc.and_(first, one)
    return first


def _conditions(devices: pa.Array, wanted: Wanted, after: Place | None) -> Iterator[pa.BooleanArray]:
    if not (wanted.devices or wanted.prefix or after):
        return
    devices = devices.cast(pa.string())
    if wanted.devices:
        yield pc.is_in(devices, pa.array(wanted.devices, pa.string()))
    if wanted.prefix:
        yield pc.starts_with(devices, wanted.prefix)
    if after is not None:
        yield pc.greater_equal(devices, after.device_id)


def _of_tail(found: pa.Table, wanted: Wanted, asked: Asked, after: Place | None) -> pa.Table:
    """The same of the tail's records."""
    us = found.column("timestamp").cast(TIME).cast(pa.int64())
    kept = pc.and_(pc.greater_equal(us, wanted.start_us), pc.less(us, wanted.end_us))
    devices = _are_wanted(found.column("device_id"), wanted, after)
    kept = kept if devices is None else pc.and_(kept, devices)
    others = [name for name in asked.columns if name != "timestamp"]
    return found.select(others).append_column("start_us", _starts(us, asked)).filter(kept)


def _starts(us: pa.Array, asked: Asked) -> pa.Array:
    """When each moment's bucket begins."""
    if asked.first_us is None or asked.every_us is None:
        return pa.repeat(asked.start_us, len(us))
    numbers = pc.divide(pc.subtract(us, asked.first_us), asked.every_us)
    begun = pc.add(pc.multiply(numbers, asked.every_us), asked.first_us)
    return pc.max_element_wise(begun, pa.scalar(asked.start_us))


def _added_up(records: pa.Table, asked: Asked) -> pa.Table:
    """Summaries, in any order."""
    found = records.unify_dictionaries().group_by(["device_id", "start_us"], use_threads=False)
    made = found.aggregate([FIELDS[name] for name in asked.fields])
    columns = {name: made.column("_".join(FIELDS[name])) for name in asked.fields}
    if "speed_kmh_mean" in columns:
        columns["speed_kmh_mean"] = _rounded(columns["speed_kmh_mean"])
    return pa.table(
        {"device_id": made.column("device_id").cast(pa.string()), "start_us": made.column("start_us"), **columns}
    )


def _rounded(means: pa.ChunkedArray) -> pa.ChunkedArray:
    """Means as the statement has them: null beyond all numbers."""
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
