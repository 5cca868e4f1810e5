"""SQL that makes runs (moves.py) of records, so that only runs become Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import duckdb

from api.earth import PLACED, haversine_km
from api.moves import GAP, REST, Point, Rules, Run
from telemetry.columns import sql_text

COLUMNS = ("device_id", "timestamp", "id", "latitude", "longitude", "speed_kmh", "attributes")
"""What of a record it takes."""

_HOP_M = f"CASE WHEN last_us IS NULL THEN 0 ELSE 1000 * {haversine_km('last_latitude', 'last_longitude')} END"


def runs(
    connection: duckdb.DuckDBPyConnection, source: str, rules: Rules, after: str = ""
) -> Iterator[tuple[str, list[Run]]]:
    """The runs of each device, in the order of ids and of time. `source` is SQL that selects records with `COLUMNS`;
    devices before `after` are left out."""
    rows = connection.execute(statement(source, rules, after)).fetchall()
    for device, of_device in groupby(rows, key=lambda row: row[0]):
        yield device, [_run(row) for row in of_device]


def _run(row: Sequence[Any]) -> Run:
    _, is_still, before, records, entry_m, inner_m, speed_kmh_max, *ends = row
    return Run(is_still, before, Point(*ends[:3]), Point(*ends[3:]), records, entry_m, inner_m, speed_kmh_max)


def statement(source: str, rules: Rules, after: str) -> str:
    """SQL that selects runs. Of two records of a moment the second adds its way and no time."""
    window = "WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    placed = f"SELECT device_id, epoch_us(timestamp) AS us, id, latitude, longitude, speed_kmh FROM ({source})"
    placed += f" WHERE {PLACED} AND device_id >= {sql_text(after)}"
    lags = ", ".join(f"lag({name}) OVER w AS last_{name}" for name in ("us", "latitude", "longitude"))
    hops = f"SELECT *, {_HOP_M} AS hop_m, coalesce(us - last_us, 0) AS hop_us FROM "
    hops += f"(SELECT *, {lags} FROM ({placed}) {window})"
    speed = "coalesce(speed_kmh, CASE WHEN hop_us > 0 THEN hop_m / hop_us * 3.6e6 END, 0)"
    gap_us = round(rules.max_gap_s * 1e6)
    before = f"CASE WHEN hop_us <= {gap_us} THEN 0 WHEN hop_m <= {rules.rest_m!r} THEN {REST} ELSE {GAP} END"
    states = f"SELECT *, {speed} AS kmh, {speed} <= {rules.stopped_kmh!r} AS is_still, {before} AS before FROM ({hops})"
    begins = "before > 0 OR is_still IS DISTINCT FROM lag(is_still) OVER w"
    marked = f"SELECT *, CAST({begins} AS INTEGER) AS begins FROM ({states}) {window}"
    numbered = f"SELECT *, sum(begins) OVER w AS run FROM ({marked}) {window}"
    return (
        "SELECT device_id, any_value(is_still), max(before), count(*), "
        "sum(hop_m * begins), sum(hop_m * (1 - begins)), max(kmh), "
        "min(us), arg_min(latitude, (us, id)), arg_min(longitude, (us, id)), "
        "max(us), arg_max(latitude, (us, id)), arg_max(longitude, (us, id)) "
        f"FROM ({numbered}) GROUP BY device_id, run ORDER BY device_id, run"
    )
