"""SQL that leaves out implausible positions (plausibility.py): by themselves in any query, and at jumps in tables of
hops.

A hop leads to a position from the device's position before it. Queries that add up hops hand over SQL that makes them.
It runs once for all devices. For devices with outliers it runs again, on the rows that the first run made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa

from api.geo.geo_sql import PLACED
from api.positions.plausibility import CONTEXT, LEAST_US, NEAREST, Limits, Position, left_out
from api.snapshot.neighbours import Look

_NEAR_ZERO = 1e-6
"""Degrees, 11 cm: how far apart from 0 a coordinate may be that means 0."""

BASE = ("device_id", "us", "id", "latitude", "longitude", "speed_kmh", "is_left_out")
"""Columns that SQL of hops takes and hands on. `us` is the time in µs since epoch. Latitude and longitude are null
without a plausible position; `is_left_out` holds of records with an implausible one."""

Hops = Callable[[str], str]
"""SQL of hops, of SQL that selects `BASE`. Besides, it selects `is_jump` (`jump`)."""


def base(source: str, limits: Limits, where: str = "true", has_speed: bool = True) -> str:
    """SQL that selects `BASE` of records that SQL selects, which have `columns`. Speeds are null unless `has_speed`."""
    plausible, speed = is_plausible(limits), "speed_kmh" if has_speed else "CAST(NULL AS DOUBLE) AS speed_kmh"
    return (
        f"SELECT device_id, epoch_us(timestamp) AS us, id, CASE WHEN {plausible} THEN latitude END AS latitude, "
        f"CASE WHEN {plausible} THEN longitude END AS longitude, {speed}, "
        f"({PLACED}) AND NOT ({plausible}) AS is_left_out FROM ({source}) WHERE {where}"
    )


def columns(limits: Limits) -> tuple[str, ...]:
    """Columns of records that `is_plausible` reads."""
    return ("latitude", "longitude", "attributes", *(("accuracy_m",) if limits.is_on else ()))


def is_plausible(limits: Limits) -> str:
    """SQL that holds of records whose position is plausible by itself."""
    if not limits.is_on:
        return PLACED
    is_zero = f"abs(latitude) < {_NEAR_ZERO} AND abs(longitude) < {_NEAR_ZERO}"
    return f"{PLACED} AND NOT ({is_zero}) AND coalesce(accuracy_m, 0) <= {limits.max_accuracy_m!r}"


def jump(km: str, us: str, limits: Limits) -> str:
    """SQL that holds of a hop, of SQL of its way and its time, that is a jump."""
    if not limits.is_on:
        return "false"
    return f"coalesce({km} > {limits.max_jump_kmh / 3.6e9!r} * greatest({us}, {LEAST_US}), false)"


def kmh(km: str, us: str) -> str:
    """SQL of the speed of a hop; null if it took no time."""
    return f"CASE WHEN {us} > 0 THEN {km} / greatest({us}, {LEAST_US}) * 3.6e9 END"


def look(margin_us: int, limits: Limits, is_of_range: bool = False) -> Look:
    """Records outside a range that the plausible positions in it depend on, and the hops to them."""
    nearest = NEAREST if limits.is_on else 1
    return Look(margin_us, nearest, is_plausible(limits), is_of_range=is_of_range, reach_us=limits.reach_us)


@contextmanager
def settled(connection: duckdb.DuckDBPyConnection, records: str, hops: Hops, limits: Limits) -> Iterator[str]:
    """SQL of hops between plausible positions, of SQL that selects `BASE`; good within the context."""
    if not limits.is_on:
        yield hops(records)
        return
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE hops AS {hops(records)}")
        yield _settled(connection, hops, limits)
    finally:
        connection.execute("DROP TABLE IF EXISTS temp.hops; DROP TABLE IF EXISTS temp.settled_hops")


def _settled(connection: duckdb.DuckDBPyConnection, hops: Hops, limits: Limits) -> str:
    ids = outlier_ids(connection, limits)
    if not ids:
        return "SELECT * FROM hops"
    connection.register("implausible", pa.table({"jumped_id": pa.array(ids, pa.int64())}))
    some = "SELECT device_id FROM hops JOIN implausible ON id = jumped_id"
    is_out = "id IN (SELECT jumped_id FROM implausible)"
    again = (
        f"SELECT * REPLACE (CASE WHEN NOT {is_out} THEN latitude END AS latitude, "
        f"CASE WHEN NOT {is_out} THEN longitude END AS longitude, is_left_out OR {is_out} AS is_left_out) "
        f"FROM (SELECT {', '.join(BASE)} FROM hops WHERE device_id IN ({some}))"
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE settled_hops AS {hops(again)}")
    return f"SELECT * FROM hops WHERE device_id NOT IN ({some}) UNION ALL SELECT * FROM settled_hops"


def outlier_ids(connection: duckdb.DuckDBPyConnection, limits: Limits) -> list[int]:
    """Ids of the records whose positions are left out because of jumps, of the table `hops` of SQL of hops."""
    devices = connection.execute("SELECT DISTINCT device_id FROM hops WHERE is_jump").fetchall()
    if not devices:
        return []
    numbered = (
        "SELECT device_id, us, latitude, longitude, id, is_jump, "
        "row_number() OVER (PARTITION BY device_id ORDER BY us, id) AS number FROM hops "
        "WHERE latitude IS NOT NULL AND device_id IN (SELECT device_id FROM hops WHERE is_jump)"
    )
    numbers = f"number + unnest(range({-CONTEXT}, {CONTEXT})) AS number"
    near = f"SELECT DISTINCT device_id, {numbers} FROM numbered WHERE is_jump"
    rows = connection.execute(
        f"WITH numbered AS MATERIALIZED ({numbered}), near AS ({near}) "
        "SELECT device_id, number, id, us, latitude, longitude FROM numbered SEMI JOIN near USING (device_id, number) "
        "ORDER BY device_id, number"
    ).fetchall()
    return [found for run in _runs(rows) for found in _of_run(run, limits)]


def _runs(rows: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of one device that are next to one another."""
    for _, run in groupby(enumerate(rows), key=lambda found: (found[1][0], found[1][1] - found[0])):
        yield [row for _, row in run]


def _of_run(run: list[tuple[Any, ...]], limits: Limits) -> list[int]:
    places = left_out([Position(*row[3:]) for row in run], limits)
    return [run[place][2] for place in places]
