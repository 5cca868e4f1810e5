"""The SQL of summaries: what each field is, of records of one device in one stretch of time (a bucket).

A hop leads from a record to the device's next one of the same kind in the order of (timestamp, id), over what lies
between them: those with a fix make `distance_km`, those with a speed `stopped_seconds`. A hop of at most `max_gap_us`
is cut at the borders of buckets, by time. Of a longer one nobody knows when the way was made, so it belongs to the
bucket of its later record. Thus the parts of a range add up to the whole. Hops cost a sort of all records, so records
have them only if a field needs them.

This file knows no clock, socket, file or Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from api.geo.geo_sql import PLACED, haversine_km
from api.records.neighbours import BOUND_US, Look
from api.requests.params import Place
from telemetry.archive.schema import sql_text, time_sql
from telemetry.model.record import EARLIEST_US
from telemetry.model.utc import DAY_US, iso

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
    def look(self) -> Look:
        """Which records around the range hops depend on: all that may begin or end one that is cut, and the last one of
        each device, where one that is not cut may begin."""
        return Look(self.max_gap_us, int("distance_km" in self.fields), PLACED, is_after=False, is_of_range=True)

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


def _where_any(columns: str, sql: str) -> str:
    """Null for a bucket in which no row has one of the columns."""
    return f"CASE WHEN count(coalesce({columns})) > 0 THEN {sql} END"


_CROSSES = "max(longitude) FILTER (longitude < 0) + 360 - min(longitude) FILTER (longitude >= 0)"
_BOX = (
    f"CASE WHEN {_CROSSES} < max(longitude) - min(longitude) THEN [min(longitude) FILTER (longitude >= 0), "
    "min(latitude), max(longitude) FILTER (longitude < 0), max(latitude)] "
    "ELSE [min(longitude), min(latitude), max(longitude), max(latitude)] END"
)

FIELDS = {
    "count": Field("count(us)"),
    "first": Field("min(us)", is_moment=True),
    "last": Field("max(us)", is_moment=True),
    "distance_km": Field(
        _where_any("latitude, hop_km", f"round(coalesce(sum(hop_km), 0), {DIGITS})"),
        ("attributes", "latitude", "longitude"),
        has_hops=True,
    ),
    "speed_kmh_mean": Field(
        f"CASE WHEN isfinite(avg(speed_kmh)) THEN round(avg(speed_kmh), {DIGITS}) END", ("speed_kmh",)
    ),
    "speed_kmh_max": Field("max(speed_kmh)", ("speed_kmh",)),
    "stopped_seconds": Field(
        _where_any("speed_kmh, stopped_us", f"round(coalesce(sum(stopped_us), 0) / 1e6, {DIGITS})"),
        ("speed_kmh",),
        has_hops=True,
    ),
    "bbox": Field(_where_any("latitude", _BOX), ("attributes", "latitude", "longitude")),
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
    bucket, hops = _bucket(asked), ""
    if asked.has_hops:
        hops, records = f"WITH hops AS MATERIALIZED ({_hops(records, asked)}) ", _parts(asked, bucket)
    start_us = "start_us" if asked.has_hops else bucket.of("us")
    fields = ", ".join(f"{FIELDS[name].sql} AS {name}" for name in asked.fields)
    summaries = (
        f"SELECT device_id, {start_us} AS start_us, {fields} FROM ({records}) "
        f"GROUP BY device_id, start_us {_behind(after)} ORDER BY device_id, start_us LIMIT {limit + 1}"
    )
    found = f"SELECT {_json(asked, bucket)} AS json, device_id, start_us FROM ({summaries})"
    return f"{hops}{found} ORDER BY device_id, start_us"


def _json(asked: Asked, bucket: _Bucket) -> str:
    shown = {"device_id": "device_id", "start": bucket.start, "end": bucket.end}
    shown |= {name: time_sql(name) if FIELDS[name].is_moment else name for name in asked.fields}
    return f"to_json(struct_pack({', '.join(f'{_quoted(name)} := {sql}' for name, sql in shown.items())}))"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _columns(asked: Asked) -> str:
    """Of a record: its moment in µs, and its coordinates if it has a fix."""
    made = {
        "timestamp": "epoch_us(timestamp) AS us",
        "latitude": f"CASE WHEN {PLACED} THEN latitude END AS latitude",
        "longitude": f"CASE WHEN {PLACED} THEN longitude END AS longitude",
    }
    return ", ".join(made.get(name, name) for name in asked.columns if name != "attributes")


# Hops ------------------------------------------------------------------------------------------------


class _Hop(NamedTuple):
    """SQL of a kind of hop: what it adds to a bucket, when it begins if it counts, and that amount."""

    name: str
    begin_us: str
    amount: str


_HOP_KM = haversine_km("before_latitude", "before_longitude")


def _kinds(asked: Asked) -> list[_Hop]:
    """A hop that is not cut begins where it ends."""
    found = []
    if "distance_km" in asked.fields:
        known = f"latitude IS NOT NULL AND us - before_placed_us <= {BOUND_US}"
        begin = f"CASE WHEN us - before_placed_us <= {asked.max_gap_us} THEN before_placed_us ELSE us END"
        found.append(_Hop("hop_km", f"CASE WHEN {known} THEN {begin} END", f"CASE WHEN {known} THEN {_HOP_KM} END"))
    if "stopped_seconds" in asked.fields:
        slow = f"speed_kmh <= {asked.stopped_kmh!r} AND before_speed_kmh <= {asked.stopped_kmh!r}"
        known = f"{slow} AND us - before_told_us <= {asked.max_gap_us}"
        found.append(_Hop("stopped_us", f"CASE WHEN {known} THEN before_told_us END", "us - begin_stopped_us"))
    return found


def _hops(records: str, asked: Asked) -> str:
    """Records and the hops to each from the device's ones before."""
    before: dict[str, str] = {}
    if "distance_km" in asked.fields:
        before |= {"latitude": "latitude", "longitude": "longitude", "placed_us": _US_WITH["latitude"]}
    if "stopped_seconds" in asked.fields:
        before |= {"speed_kmh": "speed_kmh", "told_us": _US_WITH["speed_kmh"]}
    lags = ", ".join(f"lag({sql} IGNORE NULLS) OVER w AS before_{name}" for name, sql in before.items())
    pairs = f"SELECT *, {lags} FROM ({records}) WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    some = ", ".join(f"{hop.begin_us} AS begin_{hop.name}, {hop.amount} AS {hop.name}" for hop in _kinds(asked))
    return f"SELECT {', '.join(['device_id', 'us', *_values(asked)])}, {some} FROM ({pairs})"


_US_WITH = {name: f"CASE WHEN {name} IS NOT NULL THEN us END" for name in ("latitude", "speed_kmh")}


def _values(asked: Asked) -> list[str]:
    """The columns that fields are made of beside hops."""
    return [name for name in asked.columns if name in ("latitude", "longitude", "speed_kmh")]


def _parts(asked: Asked, bucket: _Bucket) -> str:
    """Records of the range, with what of their hops is in their own bucket, and the rest of hops that are cut: a row
    for each bucket, without a record."""
    kinds, names = _kinds(asked), _values(asked)
    begins = [f"begin_{hop.name}" for hop in kinds]
    begin_us = f"least({', '.join(begins)})" if len(begins) > 1 else begins[0]
    whole = [
        f"CASE WHEN {begin} >= start_us THEN {hop.name} ELSE {_share(hop, 'us')} END AS {hop.name}"
        for hop, begin in zip(kinds, begins, strict=True)
    ]
    cut = [
        f"CASE WHEN {begin} < us AND {begin} < end_us AND start_us < us THEN {_share(hop, 'least(us, end_us)')} END"
        for hop, begin in zip(kinds, begins, strict=True)
    ]
    own_us = bucket.of("us")
    inside = f"SELECT *, {own_us} AS start_us FROM hops WHERE us >= {asked.start_us} AND us < {asked.end_us}"
    own = f"SELECT {', '.join(['device_id', 'us', *names, *whole, 'start_us'])} FROM ({inside})"
    crosses = f"us > {asked.start_us} AND {begin_us} < {asked.end_us} "
    crosses += f"AND (us >= {asked.end_us} OR {begin_us} < {own_us})"
    crossed = f"SELECT *, {bucket.crossed(begin_us)} AS raw_us FROM hops WHERE {crosses}"
    ends = f"greatest(raw_us, {asked.start_us}) AS start_us, {bucket.end_us('raw_us')} AS end_us"
    pieces = f"SELECT *, {ends} FROM ({crossed})"
    nulls = [f"NULL AS {name}" for name in ("us", *names)]
    rest = f"SELECT {', '.join(['device_id', *nulls, *cut, 'start_us'])} FROM ({pieces})"
    return f"{own} UNION ALL {rest}"


def _share(hop: _Hop, until: str) -> str:
    """SQL of what of a hop lies between a bucket's start and a moment, by time."""
    return f"{hop.name} * (({until} - greatest(begin_{hop.name}, start_us)) / (us - begin_{hop.name}))"


# Buckets ---------------------------------------------------------------------------------------------


class _Bucket(NamedTuple):
    """SQL of buckets: `start` and `end` are the JSON texts of one's ends."""

    asked: Asked
    start: str
    end: str

    def of(self, us: str) -> str:
        """When the bucket of a moment begins, µs."""
        start_us = self.asked.start_us
        return str(start_us) if self.asked.first_us is None else f"greatest({self._raw_us(us)}, {start_us})"

    def end_us(self, raw_us: str) -> str:
        """When one ends that would begin then, were it not cut."""
        end_us = self.asked.end_us
        return str(end_us) if self.asked.first_us is None else f"least({raw_us} + {self.asked.every_us}, {end_us})"

    def crossed(self, begin_us: str) -> str:
        """Rows: when each bucket between a moment and `us` would begin, without that of `us`."""
        start_us, end_us, every_us = self.asked.start_us, self.asked.end_us, self.asked.every_us
        if self.asked.first_us is None:
            behind = f"CASE WHEN us < {end_us} THEN {start_us} ELSE {end_us} END"
            return f"unnest(range({start_us}, {behind}, {end_us - start_us}))"
        first = self._raw_us(f"greatest({begin_us}, {start_us})")
        behind = f"CASE WHEN us < {end_us} THEN {self._raw_us('us')} ELSE {end_us} END"
        return f"unnest(range({first}, {behind}, {every_us}))"

    def _raw_us(self, us: str) -> str:
        first_us, every_us = self.asked.first_us, self.asked.every_us
        return f"({first_us} + ({us} - {first_us}) // {every_us} * {every_us})"


def _bucket(asked: Asked) -> _Bucket:
    start_us, end_us, every_us, first_us = asked.start_us, asked.end_us, asked.every_us, asked.first_us
    if first_us is None:
        return _Bucket(asked, sql_text(iso(start_us)), sql_text(iso(end_us)))
    ended = f"{first_us} + ((start_us - {first_us}) // {every_us} + 1) * {every_us}"
    return _Bucket(asked, time_sql("start_us"), time_sql(f"least({ended}, {end_us})"))


def _behind(after: Place | None) -> str:
    if after is None:
        return ""
    device = sql_text(after.device_id)
    return f"HAVING device_id > {device} OR (device_id = {device} AND start_us > {after.start_us})"
