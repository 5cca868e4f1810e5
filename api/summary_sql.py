"""The SQL of summaries: what each field is, of records of one device in one stretch of time (a bucket).

A hop leads from a record to the device's next one of the same kind in the order of (timestamp, id), over what lies
between them, and belongs to the bucket of its later record: those with coordinates make `distance_km`, those with a
speed `stopped_seconds`. Hops cost a sort of all records, so records have them only if a field needs them.

This file knows no clock, socket, file or Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from api.earth import haversine_km
from api.params import Place
from telemetry.columns import sql_text
from telemetry.days import DAY_US, iso
from telemetry.record import EARLIEST_US

DIGITS = 6
"""Decimals of what is added up: mm, and what doesn't depend on the order in which threads add."""

MONDAY_US = EARLIEST_US + 2 * DAY_US
"""2000-01-03 UTC, from which buckets are counted; DuckDB's `time_bucket` does the same."""


class Field(NamedTuple):
    """A field of a summary: its SQL over a bucket's records, what these must have, and whether it is a moment in µs."""

    sql: str
    columns: tuple[str, ...] = ()
    has_hops: bool = False
    is_moment: bool = False


class Asked(NamedTuple):
    """What summaries tell: their fields, the time that one spans (None: all), and which hops are stops."""

    fields: Sequence[str]
    start_us: int
    end_us: int
    every_us: int | None
    stopped_kmh: float
    max_gap_us: int

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read of records."""
        wanted = {name for field in self.fields for name in FIELDS[field].columns}
        return ("device_id", "timestamp", *sorted(wanted | ({"id"} if self.has_hops else set())))

    @property
    def has_hops(self) -> bool:
        return any(FIELDS[field].has_hops for field in self.fields)

    @property
    def first_us(self) -> int | None:
        """When the first bucket would begin, were it not cut; None if there is only one."""
        start_us, every_us = self.start_us, self.every_us
        if every_us is None or (start_us - MONDAY_US) // every_us == (self.end_us - 1 - MONDAY_US) // every_us:
            return None
        return MONDAY_US + (start_us - MONDAY_US) // every_us * every_us

    def behind_us(self, start_us: int) -> int:
        """The end of the bucket that starts then."""
        if self.first_us is None or self.every_us is None:
            return self.end_us
        return min(self.first_us + ((start_us - self.first_us) // self.every_us + 1) * self.every_us, self.end_us)


def _iso(us: str) -> str:
    """The JSON text of a moment, six digits of fraction where it isn't zero."""
    seconds = f"strftime(make_timestamp({us}), '%Y-%m-%dT%H:%M:%S"
    return f"CASE WHEN {us} % 1000000 = 0 THEN {seconds}Z') ELSE {seconds}.%fZ') END"


def text(us: int) -> str:
    """The same of a moment that is known."""
    return iso(us).replace(".000000", "")


def _where_any(column: str, sql: str) -> str:
    """Null for a bucket in which no record has the column."""
    return f"CASE WHEN count({column}) > 0 THEN {sql} END"


_CROSSES = "max(longitude) FILTER (longitude < 0) + 360 - min(longitude) FILTER (longitude >= 0)"
_BOX = (
    f"CASE WHEN {_CROSSES} < max(longitude) - min(longitude) THEN [min(longitude) FILTER (longitude >= 0), "
    "min(latitude), max(longitude) FILTER (longitude < 0), max(latitude)] "
    "ELSE [min(longitude), min(latitude), max(longitude), max(latitude)] END"
)

FIELDS = {
    "count": Field("count(*)"),
    "first": Field("min(us)", is_moment=True),
    "last": Field("max(us)", is_moment=True),
    "distance_km": Field(
        _where_any("latitude", f"round(coalesce(sum(hop_km), 0), {DIGITS})"), ("latitude", "longitude"), has_hops=True
    ),
    "speed_kmh_mean": Field(
        f"CASE WHEN isfinite(avg(speed_kmh)) THEN round(avg(speed_kmh), {DIGITS}) END", ("speed_kmh",)
    ),
    "speed_kmh_max": Field("max(speed_kmh)", ("speed_kmh",)),
    "stopped_seconds": Field(
        _where_any("speed_kmh", "coalesce(sum(stopped_us), 0) / 1e6"), ("speed_kmh",), has_hops=True
    ),
    "bbox": Field(_where_any("latitude", _BOX), ("latitude", "longitude")),
}
"""All fields, in the order of answers."""

# The statement --------------------------------------------------------------------------------------


def statement(source: str, asked: Asked, limit: int, after: Place | None) -> str:
    """SQL that selects JSON, device and start (µs) of one page of summaries, and of one more if there are more.

    `source` is SQL that selects records, with `asked.columns`. Each select inside another takes 0.2 ms to plan.
    """
    records = f"SELECT {_columns(asked)} FROM ({source})"
    if after is not None:
        records += f" WHERE device_id >= {sql_text(after.device_id)}"
    if asked.has_hops:
        records = _with_hops(records, asked)
    bucket = _bucket(asked)
    fields = ", ".join(f"{FIELDS[name].sql} AS {name}" for name in asked.fields)
    summaries = (
        f"SELECT device_id, {bucket.of_record} AS start_us, {fields} FROM ({records}) "
        f"GROUP BY device_id, start_us {_behind(after)} ORDER BY device_id, start_us LIMIT {limit + 1}"
    )
    return f"SELECT {_json(asked, bucket)} AS json, device_id, start_us FROM ({summaries}) ORDER BY device_id, start_us"


def _json(asked: Asked, bucket: _Bucket) -> str:
    shown = {"device_id": "device_id", "start": bucket.start, "end": bucket.end}
    shown |= {name: _iso(name) if FIELDS[name].is_moment else name for name in asked.fields}
    return f"to_json(struct_pack({', '.join(f'{_quoted(name)} := {sql}' for name, sql in shown.items())}))"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _columns(asked: Asked) -> str:
    """Of a record: its moment in µs, and a coordinate only beside the other one."""
    made = {
        "timestamp": "epoch_us(timestamp) AS us",
        "latitude": "CASE WHEN longitude IS NOT NULL THEN latitude END AS latitude",
        "longitude": "CASE WHEN latitude IS NOT NULL THEN longitude END AS longitude",
    }
    return ", ".join(made.get(name, name) for name in asked.columns)


def _with_hops(records: str, asked: Asked) -> str:
    """Records and the hop to each from the device's one before."""
    before: dict[str, str] = {}
    hops: dict[str, str] = {}
    if "distance_km" in asked.fields:
        before |= {"latitude": "latitude", "longitude": "longitude"}
        hops["hop_km"] = _HOP_KM
    if "stopped_seconds" in asked.fields:
        before |= {"speed_kmh": "speed_kmh", "us": "CASE WHEN speed_kmh IS NOT NULL THEN us END"}
        hops["stopped_us"] = (
            f"CASE WHEN speed_kmh <= {asked.stopped_kmh!r} AND before_speed_kmh <= {asked.stopped_kmh!r} "
            f"AND us - before_us <= {asked.max_gap_us} THEN us - before_us END"
        )
    lags = ", ".join(f"lag({sql} IGNORE NULLS) OVER w AS before_{name}" for name, sql in before.items())
    some = ", ".join(f"{sql} AS {name}" for name, sql in hops.items())
    pairs = f"SELECT *, {lags} FROM ({records}) WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    return f"SELECT *, {some} FROM ({pairs})"


_HOP_KM = (
    "CASE WHEN latitude IS NOT NULL AND before_latitude IS NOT NULL "
    f"THEN {haversine_km('before_latitude', 'before_longitude')} END"
)


class _Bucket(NamedTuple):
    """SQL of the start of a record's bucket in µs, and of the JSON text of a bucket's ends."""

    of_record: str
    start: str
    end: str


def _bucket(asked: Asked) -> _Bucket:
    start_us, end_us, every_us, first_us = asked.start_us, asked.end_us, asked.every_us, asked.first_us
    if first_us is None:
        return _Bucket(str(start_us), sql_text(text(start_us)), sql_text(text(end_us)))
    begun = f"{first_us} + (us - {first_us}) // {every_us} * {every_us}"
    ended = f"{first_us} + ((start_us - {first_us}) // {every_us} + 1) * {every_us}"
    return _Bucket(f"greatest({begun}, {start_us})", _iso("start_us"), _iso(f"least({ended}, {end_us})"))


def _behind(after: Place | None) -> str:
    if after is None:
        return ""
    device = sql_text(after.device_id)
    return f"HAVING device_id > {device} OR (device_id = {device} AND start_us > {after.start_us})"
