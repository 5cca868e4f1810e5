"""Records left out of an answer: exact re-sends (`distinct=`), and all but one of each stretch of time (`every=`)."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from starlette.requests import Request

from api.formats.contract import BATCH_ROWS
from collector.http import invalid_parameter
from telemetry.columns import COLUMNS
from telemetry.days import DAY_US

PARAMETERS = ("distinct", "every")
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
    """

    is_distinct: bool = False
    every_us: int = 0

    def sql(self, records: str) -> str:
        """SQL that selects what stays of the records that SQL selects, which have all columns."""
        if self.is_distinct:
            records = f"SELECT * FROM ({records}) QUALIFY row_number() OVER (PARTITION BY {_SAME} ORDER BY id) = 1"
        if self.every_us:
            first = f"row_number() OVER (PARTITION BY device_id, {self._stretch} ORDER BY timestamp, id) = 1"
            records = f"SELECT * FROM ({records}) QUALIFY {first}"
        return records

    @contextmanager
    def of_sorted(
        self, connection: duckdb.DuckDBPyConnection, records: str
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        """The same of records that come device by device in each day, and keep their order: they are looked at while
        they come, in little memory. Gives SQL that is good for one statement, and the connection to run it on."""
        if not self.is_distinct:
            yield connection, self._first_of_sorted(records)
            return
        with connection.cursor() as cursor, connection.sql(records).to_arrow_reader(BATCH_ROWS) as found:
            batches = distinct(found.cast(COLUMNS))
            cursor.register("distinct_records", pa.RecordBatchReader.from_batches(COLUMNS, batches))
            try:
                yield cursor, self._first_of_sorted("SELECT * FROM distinct_records")
            finally:
                batches.close()

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
        """Where the stretch of a moment begins: what is left out of it can't be told by less."""
        return timestamp_us - timestamp_us % DAY_US % self.every_us if self.every_us else timestamp_us


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


def thinned(request: Request) -> Thinned:
    """What a request has left out. Raises `ProblemError`."""
    distinct = request.query_params.get("distinct", "false")
    if distinct not in ("true", "false"):
        raise invalid_parameter("distinct", "must be true or false")
    return Thinned(distinct == "true", _every_us(request.query_params.get("every")))


def _every_us(text: str | None) -> int:
    if text is None:
        return 0
    found = _EVERY.fullmatch(text)
    every_us = int(found[1]) * UNITS_US[found[2]] if found else 0
    if not 0 < every_us <= MOST_EVERY_US:
        raise invalid_parameter("every", "must be a stretch of time of at most a day, like 10s, 5m or 1h")
    return every_us
