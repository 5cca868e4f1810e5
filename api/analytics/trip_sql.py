"""SQL that groups records into runs (trip_detection.py), so that only runs become Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import duckdb

from api.geo.geo_sql import PLACED, haversine_km
from api.positions import plausible_sql
from api.positions.plausibility import Limits
from api.positions.plausible_sql import BASE
from api.snapshot.neighbours import BOUND_US
from api.tracks.trip_detection import GAP, REST, Cut, Point, Rules, Run
from telemetry.archive.schema import sql_text

_HOP_KM = f"CASE WHEN last_us IS NULL THEN 0 ELSE {haversine_km('last_latitude', 'last_longitude')} END"


class DeviceRuns(NamedTuple):
    """The runs of each device, in the order of ids and time, with a `Cut` that contains the positions at the range's
    borders; and the count of implausible positions in the range."""

    devices: Iterator[tuple[str, list[Run], Cut]]
    implausible: int


def columns(limits: Limits) -> tuple[str, ...]:
    """Columns of records that `runs` needs."""
    return ("device_id", "timestamp", "id", "speed_kmh", *plausible_sql.columns(limits))


def runs(
    connection: duckdb.DuckDBPyConnection, source: str, rules: Rules, cut: Cut, limits: Limits, after: str = ""
) -> DeviceRuns:
    """The runs of records. `source` is SQL that selects `columns` of records, including those around the cut's range.
    Devices before `after` are omitted, from the count, too."""
    records = plausible_sql.base(source, limits, f"{PLACED} AND device_id >= {sql_text(after)}")
    with plausible_sql.settled(connection, records, partial(_hops, limits=limits), limits) as hops:
        rows = connection.execute(statement(hops, rules, cut)).fetchall()
        left_out = f"SELECT count(*) FROM ({hops}) WHERE is_left_out AND {_is_within(cut)}"
        [(count,)] = connection.execute(left_out).fetchall() if limits.is_on else [(0,)]
    return DeviceRuns(_by_device(rows, cut), count)


def _by_device(rows: Sequence[Any], cut: Cut) -> Iterator[tuple[str, list[Run], Cut]]:
    for device, of_device in groupby(rows, key=lambda row: row[0]):
        some = list(of_device)
        at_start, at_end = (next((row[place] for row in some if row[place]), None) for place in (-2, -1))
        points = cut._replace(at_start=_point(cut.start_us, at_start), at_end=_point(cut.end_us, at_end))
        yield device, [_run(row) for row in some], points


def _point(us: int, place: Sequence[float] | None) -> Point | None:
    return None if place is None else Point(us, place[0], place[1])


def _run(row: Sequence[Any]) -> Run:
    _, is_still, before, records, entry_m, inner_m, sent_kmh_max, kmh_max, entry_within_m, inner_within_m, *ends = row
    first, last = Point(*ends[:3]), Point(*ends[3:6])
    within_m = entry_within_m, inner_within_m
    return Run(is_still, before, first, last, records, entry_m, inner_m, kmh_max, *within_m, sent_kmh_max)


def _hops(records: str, limits: Limits) -> str:
    """SQL of hops. Of two records with the same time, the second adds distance but no time."""
    lags = ", ".join(f"lag({name}) OVER w AS last_{name}" for name in ("us", "latitude", "longitude"))
    apart = "device_id, latitude IS NULL" if limits.is_on else "device_id"
    pairs = f"SELECT *, {lags} FROM ({records}) WINDOW w AS (PARTITION BY {apart} ORDER BY us, id)"
    hops = f"SELECT *, {_HOP_KM} AS hop_km, coalesce(us - last_us, 0) AS hop_us FROM ({pairs})"
    is_jump = f"latitude IS NOT NULL AND {plausible_sql.jump('hop_km', 'hop_us', limits)}"
    names = ", ".join((*BASE, "last_us", "last_latitude", "last_longitude", "hop_km", "hop_us"))
    return f"SELECT {names}, {is_jump} AS is_jump FROM ({hops})"


def statement(hops: str, rules: Rules, cut: Cut) -> str:
    """SQL that selects runs. `hops` is SQL of hops."""
    window = "WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    speed = "coalesce(speed_kmh, CASE WHEN hop_us > 0 AND NOT is_jump THEN hop_km / hop_us * 3.6e9 END, 0)"
    known = f"hop_us <= {BOUND_US} AND NOT is_jump"
    greatest = f"CASE WHEN {known} THEN {plausible_sql.kmh('hop_km', 'hop_us')} END"
    gap_us = round(rules.max_gap_s * 1e6)
    rests = f"1000 * hop_km <= {rules.rest_m!r} AND hop_us <= {BOUND_US}"
    before = f"CASE WHEN is_jump THEN {GAP} WHEN hop_us <= {gap_us} THEN 0 WHEN {rests} THEN {REST} ELSE {GAP} END"
    states = f"SELECT *, coalesce(speed_kmh, {greatest}, 0) AS kmh, {speed} <= {rules.stopped_kmh!r} AS is_still, "
    states += f"{before} AS before, 1000 * hop_km AS hop_m, 1000 * hop_km * {_share(cut)} AS within_m, "
    states += f"{_is_within(cut)} AS is_within FROM ({hops}) WHERE latitude IS NOT NULL"
    begins = "before > 0 OR is_still IS DISTINCT FROM lag(is_still) OVER w"
    marked = f"SELECT *, CAST({begins} AS INTEGER) AS begins FROM ({states}) {window}"
    numbered = f"SELECT *, sum(begins) OVER w AS run FROM ({marked}) {window}"
    return (
        "SELECT device_id, any_value(is_still), max(before), count(*) FILTER (is_within), "
        "sum(hop_m * begins), sum(hop_m * (1 - begins)), "
        "max(speed_kmh) FILTER (is_within), max(kmh) FILTER (is_within), "
        "sum(within_m * begins), sum(within_m * (1 - begins)), "
        "min(us), arg_min(latitude, (us, id)), arg_min(longitude, (us, id)), "
        "max(us), arg_max(latitude, (us, id)), arg_max(longitude, (us, id)), "
        f"{_place_at(cut.start_us)}, {_place_at(cut.end_us)} "
        f"FROM ({numbered}) GROUP BY device_id, run ORDER BY device_id, run"
    )


def _is_within(cut: Cut) -> str:
    return f"us >= {cut.start_us} AND us < {cut.end_us}"


def _share(cut: Cut) -> str:
    """SQL of the share of a hop's time that lies in the range, 0 to 1."""
    us = f"greatest(least(us, {cut.end_us}) - greatest(last_us, {cut.start_us}), 0)"
    return f"CASE WHEN hop_us > 0 THEN {us} / hop_us ELSE CAST({_is_within(cut)} AS INTEGER) END"


def _place_at(at_us: int) -> str:
    """SQL of the interpolated latitude and longitude at a time within a run or its first hop; null for other runs."""
    part = f"({at_us} - last_us) / hop_us"
    latitude = f"last_latitude + (latitude - last_latitude) * {part}"
    east = "(longitude - last_longitude + 540) % 360 - 180"
    longitude = f"(last_longitude + ({east}) * {part} + 540) % 360 - 180"
    return f"any_value([{latitude}, {longitude}]) FILTER (last_us < {at_us} AND us >= {at_us})"
