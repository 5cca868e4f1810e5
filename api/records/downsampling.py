"""Records left out of an answer, in this order: exact re-sends (`distinct=`), all but one of each stretch of time
(`every=`), and points of a track that it looks the same without (`simplify_m=`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from starlette.requests import Request

from api.formats.format import BATCH_ROWS
from api.geo.geo_sql import PLACED
from api.positions.plausible_records import LeftOut
from api.tracks.simplification import records_to_keep, simplify
from telemetry.archive.schema import COLUMNS
from telemetry.http.operations import InvalidValue, Parameter, flag, number
from telemetry.http.problem_responses import invalid_parameter
from telemetry.model.utc import DAY_US

MOST_SIMPLIFY_M = 100_000.0
MAX_SIMPLIFIED = 1_000_000
"""Records that pages may have simplified at once: 100 MB."""

SECOND_US = 1_000_000
UNITS_US = {"s": SECOND_US, "m": 60 * SECOND_US, "h": 3_600 * SECOND_US}
MOST_EVERY_US = 24 * UNITS_US["h"]

_EVERY = re.compile(r"(\d{1,5})([smh])", re.ASCII)
_SAME_NAMES = [name for name in COLUMNS.names if name not in ("id", "received_at", "transport", "source")]
"""What of a record is the same when it is sent again."""

_SAME = ", ".join(_SAME_NAMES)
Moment = tuple[str, int]


class Thinned(NamedTuple):
    """What of the records is left out. Of the equal ones the first to arrive stays, of a stretch the earliest.

    Stretches are a device's, counted from midnight in UTC; of one that began before the range the earliest in it stays.
    A track is a device's day, and its points are the records that have a place; the others are left out.
    """

    is_distinct: bool = False
    every_us: int = 0
    simplify_m: float = 0.0

    def sql(self, records: str) -> str:
        """SQL that selects what stays of the records that SQL selects, which have all columns."""
        if self.is_distinct:
            records = f"SELECT * FROM ({records}) QUALIFY row_number() OVER (PARTITION BY {_SAME} ORDER BY id) = 1"
        if self.every_us:
            first = f"row_number() OVER (PARTITION BY device_id, {self._stretch} ORDER BY timestamp, id) = 1"
            records = f"SELECT * FROM ({records}) QUALIFY {first}"
        return records

    def simplified(self, connection: duckdb.DuckDBPyConnection, records: str) -> str:
        """SQL that selects what stays of simplified tracks. Raises `ProblemError` if there are too many records."""
        if not self.simplify_m:
            return records
        keys = connection.sql(
            f"SELECT id, device_id, epoch_us(timestamp) AS us, latitude, longitude FROM ({records}) WHERE {PLACED} "
            f"ORDER BY us // {DAY_US}, device_id, us, id LIMIT {MAX_SIMPLIFIED + 1}"
        ).to_arrow_table()
        if keys.num_rows > MAX_SIMPLIFIED:
            most = f"{MAX_SIMPLIFIED:,} records at once: ask for less, or for an export"
            raise invalid_parameter("simplify_m", f"may be asked for of {most}")
        stays = keys.select(["id"]).filter(records_to_keep(keys, self.simplify_m))
        connection.register("simplified", stays)
        return f"SELECT * FROM ({records}) SEMI JOIN simplified USING (id)"

    @contextmanager
    def of_sorted(
        self, connection: duckdb.DuckDBPyConnection, records: str, batch_rows: int = BATCH_ROWS
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        """All of it of records that come device by device in each day, and keep their order: they are looked at while
        they come, in little memory. Gives SQL that is good for one statement, and the connection to run it on."""
        with ExitStack() as stack:
            if self.is_distinct:
                connection, records = stack.enter_context(_through(distinct, connection, records, batch_rows))
            records = self._first_of_sorted(records)
            if self.simplify_m:
                step = partial(simplify, tolerance_m=self.simplify_m)
                connection, records = stack.enter_context(_through(step, connection, records, batch_rows))
            yield connection, records

    def _first_of_sorted(self, records: str) -> str:
        """DuckDB looks one row back while rows stream."""
        if not self.every_us:
            return records
        last = f"lag(device_id) OVER () AS last_device, lag({self._stretch}) OVER () AS last_stretch"
        is_first = f"(last_device, last_stretch) IS DISTINCT FROM (device_id, {self._stretch})"
        return f"SELECT {', '.join(COLUMNS.names)} FROM (SELECT *, {last} FROM ({records})) WHERE {is_first}"

    @property
    def _stretch(self) -> str:
        """SQL of where the stretch of a record begins."""
        at = "epoch_us(timestamp)"
        return f"{at} - {at} % {DAY_US} % {self.every_us}"

    def begin_us(self, timestamp_us: int) -> int:
        """Where the stretch, or the track, of a moment begins: what is left out of it can't be told by less."""
        if self.simplify_m:
            return timestamp_us - timestamp_us % DAY_US
        return timestamp_us - timestamp_us % DAY_US % self.every_us if self.every_us else timestamp_us

    def end_us(self, timestamp_us: int) -> int:
        """Where the track of a moment ends, or else just behind it."""
        return timestamp_us - timestamp_us % DAY_US + DAY_US if self.simplify_m else timestamp_us + 1


@contextmanager
def plausible(
    connection: duckdb.DuckDBPyConnection, records: str, left_out: LeftOut, batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """Records without implausible positions, in their order: SQL that is good for one statement, and the connection to
    run it on."""
    records = left_out.sql(records)
    if not len(left_out.outlier_ids):
        yield connection, records
        return
    with _through(left_out.batches, connection, records, batch_rows) as found:
        yield found


Step = Callable[[Iterable[pa.RecordBatch]], Generator[pa.RecordBatch, None, None]]


@contextmanager
def _through(
    step: Step, connection: duckdb.DuckDBPyConnection, records: str, batch_rows: int
) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """Records as a step leaves them, while they come: what reads them needs a connection of its own."""
    with connection.cursor() as cursor, connection.sql(records).to_arrow_reader(batch_rows) as found:
        batches = step(found.cast(COLUMNS))
        cursor.register("left_records", pa.RecordBatchReader.from_batches(COLUMNS, batches))
        try:
            yield cursor, "SELECT * FROM left_records"
        finally:
            batches.close()


def distinct(batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """What stays of records in the order of device, time and id: of those that are equal the first. Few are of the
    same device and moment, and only these are looked at one by one."""
    last: Moment | None = None
    seen: set[tuple[Any, ...]] = set()
    for batch in batches:
        if batch.num_rows == 0:
            continue
        moments = list(zip(batch.column("device_id").to_pylist(), _us(batch), strict=True))
        kept: list[bool] = []
        for row, moment in enumerate(moments):
            if moment != last:
                last, seen = moment, set()
                is_alone = row + 1 < len(moments) and moments[row + 1] != moment
                if is_alone:
                    kept.append(True)
                    continue
            values = tuple(batch.column(name)[row].as_py() for name in _SAME_NAMES)
            kept.append(values not in seen)
            seen.add(values)
        yield batch if all(kept) else batch.filter(pa.array(kept))


def _us(batch: pa.RecordBatch) -> list[int]:
    found: list[int] = batch.column("timestamp").cast(pa.int64()).to_pylist()
    return found


def _every_us(text: str) -> int:
    found = _EVERY.fullmatch(text)
    every_us = int(found[1]) * UNITS_US[found[2]] if found else 0
    if not 0 < every_us <= MOST_EVERY_US:
        raise InvalidValue("must be a stretch of time of at most a day, like 10s, 5m or 1h")
    return every_us


DISTINCT = flag(
    "distinct", "Hide re-sends: of records that are the same but for arrival and transport the first.", False
)
EVERY = Parameter(
    "every",
    "The first record of each device in each such stretch, counted from midnight in UTC: 10s, 5m, 1h, at most a day.",
    {"type": "string", "pattern": "^[0-9]{1,5}[smh]$"},
    _every_us,
    default=0,
)
SIMPLIFY = number(
    "simplify_m",
    "Leave out points that lie within so many metres of the track that is left, and records without a place.",
    0.0,
    0,
    MOST_SIMPLIFY_M,
)
PARAMETERS = (DISTINCT, EVERY, SIMPLIFY)


def thinned(request: Request) -> Thinned:
    """What a request has left out. Raises `ProblemError`."""
    return Thinned(DISTINCT.of(request), EVERY.of(request), SIMPLIFY.of(request))
