"""SQL that makes runs (trip_detection.py) of records, so that only runs become Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import duckdb

from api.geo.geo_sql import PLACED, haversine_km
from api.records.neighbours import BOUND_US
from api.tracks.trip_detection import GAP, REST, Cut, Point, Rules, Run
from telemetry.archive.schema import sql_text

COLUMNS = ("device_id", "timestamp", "id", "latitude", "longitude", "speed_kmh", "attributes")
"""What of a record it takes."""

_HOP_M = f"CASE WHEN last_us IS NULL THEN 0 ELSE 1000 * {haversine_km('last_latitude', 'last_longitude')} END"


def runs(
    connection: duckdb.DuckDBPyConnection, source: str, rules: Rules, cut: Cut, after: str = ""
) -> Iterator[tuple[str, list[Run], Cut]]:
    """The runs of each device, in the order of ids and of time, and the cut with the places at its borders. `source` is
    SQL that selects records with `COLUMNS`, around the cut's range, too; devices before `after` are left out."""
    rows = connection.execute(statement(source, rules, cut, after)).fetchall()
    for device, of_device in groupby(rows, key=lambda row: row[0]):
        some = list(of_device)
        at_start, at_end = (next((row[place] for row in some if row[place]), None) for place in (-2, -1))
        found = cut._replace(at_start=_point(cut.start_us, at_start), at_end=_point(cut.end_us, at_end))
        yield device, [_run(row) for row in some], found


def _point(us: int, place: Sequence[float] | None) -> Point | None:
    return None if place is None else Point(us, place[0], place[1])


def _run(row: Sequence[Any]) -> Run:
    _, is_still, before, records, entry_m, inner_m, speed_kmh_max, entry_within_m, inner_within_m, *ends = row
    first, last = Point(*ends[:3]), Point(*ends[3:6])
    return Run(is_still, before, first, last, records, entry_m, inner_m, speed_kmh_max, entry_within_m, inner_within_m)


def statement(source: str, rules: Rules, cut: Cut, after: str) -> str:
    """SQL that selects runs. Of two records of a moment the second adds its way and no time."""
    window = "WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    placed = f"SELECT device_id, epoch_us(timestamp) AS us, id, latitude, longitude, speed_kmh FROM ({source})"
    placed += f" WHERE {PLACED} AND device_id >= {sql_text(after)}"
    lags = ", ".join(f"lag({name}) OVER w AS last_{name}" for name in ("us", "latitude", "longitude"))
    hops = f"SELECT *, {_HOP_M} AS hop_m, coalesce(us - last_us, 0) AS hop_us FROM "
    hops += f"(SELECT *, {lags} FROM ({placed}) {window})"
    speed = "coalesce(speed_kmh, CASE WHEN hop_us > 0 THEN hop_m / hop_us * 3.6e6 END, 0)"
    gap_us = round(rules.max_gap_s * 1e6)
    rests = f"hop_m <= {rules.rest_m!r} AND hop_us <= {BOUND_US}"
    before = f"CASE WHEN hop_us <= {gap_us} THEN 0 WHEN {rests} THEN {REST} ELSE {GAP} END"
    states = f"SELECT *, {speed} AS kmh, {speed} <= {rules.stopped_kmh!r} AS is_still, {before} AS before, "
    states += f"hop_m * {_share(cut)} AS within_m, {_is_within(cut)} AS is_within FROM ({hops})"
    begins = "before > 0 OR is_still IS DISTINCT FROM lag(is_still) OVER w"
    marked = f"SELECT *, CAST({begins} AS INTEGER) AS begins FROM ({states}) {window}"
    numbered = f"SELECT *, sum(begins) OVER w AS run FROM ({marked}) {window}"
    return (
        "SELECT device_id, any_value(is_still), max(before), count(*) FILTER (is_within), "
        "sum(hop_m * begins), sum(hop_m * (1 - begins)), max(kmh) FILTER (is_within), "
        "sum(within_m * begins), sum(within_m * (1 - begins)), "
        "min(us), arg_min(latitude, (us, id)), arg_min(longitude, (us, id)), "
        "max(us), arg_max(latitude, (us, id)), arg_max(longitude, (us, id)), "
        f"{_place_at(cut.start_us)}, {_place_at(cut.end_us)} "
        f"FROM ({numbered}) GROUP BY device_id, run ORDER BY device_id, run"
    )


def _is_within(cut: Cut) -> str:
    return f"us >= {cut.start_us} AND us < {cut.end_us}"


def _share(cut: Cut) -> str:
    """SQL of how much of the time from the record before to this one lies in the range, 0 to 1."""
    us = f"greatest(least(us, {cut.end_us}) - greatest(last_us, {cut.start_us}), 0)"
    return f"CASE WHEN hop_us > 0 THEN {us} / hop_us ELSE CAST({_is_within(cut)} AS INTEGER) END"


def _place_at(at_us: int) -> str:
    """SQL of latitude and longitude at a moment between two records of a run or before it; null for other runs."""
    part = f"({at_us} - last_us) / hop_us"
    latitude = f"last_latitude + (latitude - last_latitude) * {part}"
    east = "(longitude - last_longitude + 540) % 360 - 180"
    longitude = f"(last_longitude + ({east}) * {part} + 540) % 360 - 180"
    return f"any_value([{latitude}, {longitude}]) FILTER (last_us < {at_us} AND us >= {at_us})"
