"""Records whose implausible positions are replaced by null, for pages and exports.

Positions that are implausible by themselves are found in each record. Outliers at jumps are found first, in one part of
the range after another, so that memory is bounded; their ids are kept. The verdict on a position is the same for every
page and range that has its record, because records outside a part are read, too (plausibility.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.geo.geo_sql import PLACED, haversine_km
from api.positions import plausible_sql
from api.positions.plausibility import OFF, Limits
from api.snapshot.neighbours import Around
from api.snapshot.snapshot import Snapshot, Wanted
from telemetry.archive.schema import COLUMNS, days_of
from telemetry.model.utc import DAY_US, day_us

FEW_DEVICES, DAYS_OF_FEW = 10, 31
"""Maximum number of devices for which outliers are searched in 31 days together; for more, each day is a part."""

_PLACES = ("latitude", "longitude")


class LeftOut(NamedTuple):
    """The implausible positions of a range. With `drops_records` their records are left out, too: an area contains only
    records with a position."""

    limits: Limits
    outlier_ids: pa.Array
    drops_records: bool = False

    def sql(self, records: str) -> str:
        """SQL of the records without positions that are implausible by themselves, in the same order."""
        if not self.limits.is_on:
            return records
        is_out = f"{PLACED} AND NOT ({plausible_sql.is_plausible(self.limits)})"
        if self.drops_records:
            return f"SELECT * FROM ({records}) WHERE NOT ({is_out})"
        places = ", ".join(f"CASE WHEN NOT ({is_out}) THEN {name} END AS {name}" for name in _PLACES)
        return f"SELECT * REPLACE ({places}) FROM ({records})"

    def without_outliers(self, connection: duckdb.DuckDBPyConnection, records: str) -> str:
        """SQL of the records without implausible positions, in any order; good for one question."""
        if not self.limits.is_on:
            return records
        connection.register("outliers", pa.table({"outlier_id": self.outlier_ids}))
        is_out = "id IN (SELECT outlier_id FROM outliers)"
        if self.drops_records:
            return f"SELECT * FROM ({self.sql(records)}) WHERE NOT {is_out}"
        places = ", ".join(f"CASE WHEN NOT {is_out} THEN {name} END AS {name}" for name in _PLACES)
        return f"SELECT * REPLACE ({places}) FROM ({self.sql(records)})"

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
        """The records without outliers at jumps."""
        for batch in batches:
            yield from self._without(pa.Table.from_batches([batch]), self.outlier_ids).to_batches()

    def page(self, connection: duckdb.DuckDBPyConnection, records: pa.Table) -> tuple[pa.Table, int]:
        """The records without any implausible position, and how many positions were implausible."""
        if not self.limits.is_on:
            return records, 0
        connection.register("judged", records.select(["id", *_PLACES, "attributes", "accuracy_m"]))
        placed = f"SELECT id FROM ({self.without_outliers(connection, 'SELECT * FROM judged')}) WHERE {PLACED}"
        is_out = f"{PLACED} AND id NOT IN ({placed})"
        ids = connection.sql(f"SELECT id FROM judged WHERE {is_out}").to_arrow_table().column("id")
        for name in ("judged", "outliers"):
            connection.unregister(name)
        return self._without(records, ids.combine_chunks()), len(ids)

    def _without(self, records: pa.Table, ids: pa.Array) -> pa.Table:
        is_out = pc.is_in(records.column("id"), value_set=ids)
        if self.drops_records:
            return records.filter(pc.invert(is_out))
        for name in _PLACES:
            place = COLUMNS.get_field_index(name)
            values = pc.if_else(is_out, pa.scalar(None, COLUMNS.field(name).type), records.column(name))
            records = records.set_column(place, COLUMNS.field(name), values)
        return records


def nothing_left_out() -> LeftOut:
    """All positions stay."""
    return LeftOut(OFF, pa.array([], pa.int64()))


def around(wanted: Wanted, limits: Limits) -> Wanted:
    """The range of the snapshot that `left_out` needs."""
    return plausible_sql.look(0, limits, is_of_range=True).wide(wanted._replace(where="")) if limits.is_on else wanted


def left_out(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, wanted: Wanted, limits: Limits, drops_records: bool
) -> LeftOut:
    """The implausible positions of a range, of a snapshot of `around`."""
    if not limits.is_on:
        return nothing_left_out()
    ids: list[int] = []
    with connection.cursor() as cursor:
        tail = snapshot.records
        cursor.register("tail", tail)
        for part in _parts(snapshot, wanted._replace(where="")):
            ids += _outliers(cursor, snapshot, part, limits, tail.num_rows > 0)
    return LeftOut(limits, pa.array(ids, pa.int64()), drops_records)


def _parts(snapshot: Snapshot, wanted: Wanted) -> Iterator[Wanted]:
    """Parts of a range that have records."""
    step = DAYS_OF_FEW if 0 < len(wanted.devices) <= FEW_DEVICES else 1
    end_us = wanted.start_us
    days = {file.day for file in snapshot.files} | {day for day, _ in days_of(snapshot.records)}
    for day_start_us in map(day_us, sorted(days)):
        start_us = max(end_us, day_start_us)
        if start_us >= wanted.end_us:
            return
        if day_start_us + DAY_US > start_us:
            end_us = min(day_start_us + step * DAY_US, wanted.end_us)
            yield wanted._replace(start_us=start_us, end_us=end_us)


def _outliers(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, part: Wanted, limits: Limits, has_tail: bool
) -> list[int]:
    """Ids of the outliers at jumps of a part, and maybe of others near it."""
    names = ("device_id", "timestamp", "id", *plausible_sql.columns(limits))
    source = Around(connection, snapshot, names, has_tail).source(part, plausible_sql.look(0, limits, True))
    if source is None:
        return []
    records = plausible_sql.base(source, limits, PLACED, has_speed=False)
    jumped = connection.sql(f"SELECT DISTINCT device_id FROM ({_hops(records, limits)}) WHERE is_jump").to_arrow_table()
    if jumped.num_rows == 0:
        return []
    connection.register("jumped", jumped)
    some = f"SELECT * FROM ({records}) SEMI JOIN jumped USING (device_id)"
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE hops AS {_hops(some, limits)}")
        return plausible_sql.outlier_ids(connection, limits)
    finally:
        connection.execute("DROP TABLE IF EXISTS temp.hops")
        connection.unregister("jumped")


def _hops(records: str, limits: Limits) -> str:
    lags = ", ".join(f"lag({name}) OVER w AS last_{name}" for name in ("us", *_PLACES))
    window = "WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    pairs = f"SELECT *, {lags} FROM ({records}) WHERE latitude IS NOT NULL {window}"
    km = f"CASE WHEN last_us IS NOT NULL THEN {haversine_km('last_latitude', 'last_longitude')} END"
    is_jump = plausible_sql.jump(km, "us - last_us", limits)
    return f"SELECT device_id, us, id, latitude, longitude, {is_jump} AS is_jump FROM ({pairs})"
