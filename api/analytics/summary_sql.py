"""The SQL of summaries: what each field is, of records of one device in one stretch of time (a bucket).

A hop leads from a record to the device's next one of the same kind in the order of (timestamp, id), over what lies
between them: those with a plausible position make `distance_km`, those with a speed `stopped_seconds`. A hop of at
most `max_gap_us` is cut at the borders of buckets, by time. Of a longer one nobody knows when the way was made, so it
belongs to the bucket of its later record. A hop that is a jump has no way. Thus the parts of a range add up to the
whole. Hops cost a sort of all records, so records have them only if a field needs them.

This file knows no clock, socket, file or Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from api.geo.geo_sql import haversine_km
from api.positions import plausible_sql
from api.positions.plausibility import OFF, Limits
from api.positions.plausible_sql import BASE
from api.requests.params import Place
from api.snapshot.neighbours import BOUND_US, Look
from telemetry.archive.schema import sql_text, time_sql
from telemetry.model.record import EARLIEST_US
from telemetry.model.utc import DAY_US, iso

DIGITS = 6
"""Decimals of what is added up: mm, and what doesn't depend on the order in which threads add."""

MONDAY_US = EARLIEST_US + 2 * DAY_US
"""2000-01-03 UTC, from which buckets are counted; DuckDB's `time_bucket` does the same."""


class Field(NamedTuple):
    """A field of a summary: its SQL over a bucket's records, whether it needs plausible positions or hops of other
    records, and whether it is a moment in µs."""

    sql: str
    has_positions: bool = False
    has_speeds: bool = False
    has_hops: bool = False
    is_moment: bool = False
    sql_of_positions: str = ""
    """SQL of a field of speeds, for records that did not send one: out of the speeds of hops."""


class Asked(NamedTuple):
    """What summaries tell: their fields, the time that one spans (None: all), and which hops are stops."""

    fields: Sequence[str]
    start_us: int
    end_us: int
    every_us: int | None
    stopped_kmh: float
    max_gap_us: int
    limits: Limits = Limits()
    has_speeds_of_hops: bool = False
    """True if speeds of hops stand in for speeds that were not sent."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read of records."""
        wanted = {"speed_kmh"} if any(FIELDS[field].has_speeds for field in self.fields) else set()
        if self.has_positions:
            wanted |= {*plausible_sql.columns(self.limits)}
        return ("device_id", "timestamp", *sorted(wanted | ({"id"} if self.has_hops else set())))

    @property
    def has_positions(self) -> bool:
        return self.has_speeds_of_hops or any(FIELDS[field].has_positions for field in self.fields)

    @property
    def has_hops(self) -> bool:
        return self.has_positions or any(FIELDS[field].has_hops for field in self.fields)

    @property
    def has_speeds(self) -> bool:
        """True if a field uses speeds; positions give those that were not sent."""
        return any(FIELDS[field].sql_of_positions for field in self.fields)

    @property
    def jumps(self) -> Limits:
        """Limits of the positions that hops lead to; off where none are needed."""
        return self.limits if self.has_positions else OFF

    @property
    def look(self) -> Look:
        """Which records around the range hops depend on: all that may begin or end one that is cut, and the last ones
        of each device, where one that is not cut may begin."""
        look = plausible_sql.look(self.max_gap_us, self.jumps, is_of_range=True)
        return look._replace(nearest=look.nearest if self.has_positions else 0, is_after=self.jumps.is_on)

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


def _mean(speeds: str) -> str:
    return f"CASE WHEN isfinite({speeds}) THEN round({speeds}, {DIGITS}) END"


_SENT_OR_OF_HOPS = "coalesce({0}(speed_kmh), {0}(hop_kmh))"

FIELDS = {
    "count": Field("count(us)"),
    "first": Field("min(us)", is_moment=True),
    "last": Field("max(us)", is_moment=True),
    "distance_km": Field(
        _where_any("latitude, hop_km", f"round(coalesce(sum(hop_km), 0), {DIGITS})"), has_positions=True
    ),
    "speed_kmh_mean": Field(
        _mean("avg(speed_kmh)"), has_speeds=True, sql_of_positions=_mean(_SENT_OR_OF_HOPS.format("avg"))
    ),
    "speed_kmh_max": Field("max(speed_kmh)", has_speeds=True, sql_of_positions=_SENT_OR_OF_HOPS.format("max")),
    "stopped_seconds": Field(
        _where_any("speed_kmh, stopped_us", f"round(coalesce(sum(stopped_us), 0) / 1e6, {DIGITS})"),
        has_speeds=True,
        has_hops=True,
    ),
    "bbox": Field(_where_any("latitude", _BOX), has_positions=True),
    "implausible": Field("count(*) FILTER (is_left_out)", has_positions=True),
}
"""All fields, in the order of answers."""

# The statement --------------------------------------------------------------------------------------


def records_sql(source: str, asked: Asked, after: Place | None) -> str:
    """SQL of records as hops and summaries take them, of SQL that selects records, with `asked.columns`."""
    where = "true" if after is None else f"device_id >= {sql_text(after.device_id)}"
    if asked.has_positions:
        return plausible_sql.base(source, asked.limits, where, "speed_kmh" in asked.columns)
    made = {"timestamp": "epoch_us(timestamp) AS us"}
    return f"SELECT {', '.join(made.get(name, name) for name in asked.columns)} FROM ({source}) WHERE {where}"


def statement(source: str, asked: Asked, limit: int, after: Place | None) -> str:
    """SQL that selects JSON, device, start (µs), and whether a speed is missing, of one page of summaries, and of one
    more if there are more.

    `source` is SQL of hops (`hops_sql`) if `asked.has_hops`, else of records (`records_sql`). Each select inside
    another takes 0.2 ms to plan.
    """
    bucket, hops, records = _bucket(asked), "", source
    if asked.has_hops:
        kind = "NOT MATERIALIZED" if asked.jumps.is_on else "MATERIALIZED"  # those with limits are in a table
        hops, records = f"WITH hops_of_range AS {kind} ({source}) ", _parts(asked, bucket)
    start_us = "start_us" if asked.has_hops else bucket.of("us")
    fields = ", ".join(f"{_sql(FIELDS[name], asked)} AS {name}" for name in asked.fields)
    summaries = (
        f"SELECT device_id, {start_us} AS start_us, {fields} FROM ({records}) "
        f"GROUP BY device_id, start_us {_behind(after)} ORDER BY device_id, start_us LIMIT {limit + 1}"
    )
    speeds = [f"{name} IS NULL" for name in asked.fields if FIELDS[name].sql_of_positions]
    missing = " OR ".join(speeds) or "false"
    found = f"SELECT {_json(asked, bucket)} AS json, device_id, start_us, {missing} FROM ({summaries})"
    return f"{hops}{found} ORDER BY device_id, start_us"


def _sql(field: Field, asked: Asked) -> str:
    return field.sql_of_positions if field.sql_of_positions and asked.has_positions else field.sql


def _json(asked: Asked, bucket: _Bucket) -> str:
    shown = {"device_id": "device_id", "start": bucket.start, "end": bucket.end}
    shown |= {name: time_sql(name) if FIELDS[name].is_moment else name for name in asked.fields}
    return f"to_json(struct_pack({', '.join(f'{_quoted(name)} := {sql}' for name, sql in shown.items())}))"


def _quoted(name: str) -> str:
    return f'"{name}"'


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
        begin = f"CASE WHEN us - before_placed_us <= {asked.max_gap_us} THEN before_placed_us ELSE us END"
        found.append(_Hop("hop_km", f"CASE WHEN way_km IS NOT NULL THEN {begin} END", "way_km"))
    if "stopped_seconds" in asked.fields:
        slow = f"speed_kmh <= {asked.stopped_kmh!r} AND before_speed_kmh <= {asked.stopped_kmh!r}"
        known = f"{slow} AND us - before_told_us <= {asked.max_gap_us}"
        found.append(_Hop("stopped_us", f"CASE WHEN {known} THEN before_told_us END", "us - begin_stopped_us"))
    return found


def hops_sql(records: str, asked: Asked) -> str:
    """SQL of records and the hops to each from the device's ones before, of SQL of records (`records_sql`)."""
    before: dict[str, str] = {}
    if asked.has_positions:
        before |= {"latitude": "latitude", "longitude": "longitude", "placed_us": _US_WITH["latitude"]}
    if "stopped_seconds" in asked.fields:
        before |= {"speed_kmh": "speed_kmh", "told_us": _US_WITH["speed_kmh"]}
    lags = ", ".join(f"lag({sql} IGNORE NULLS) OVER w AS before_{name}" for name, sql in before.items())
    found = f"SELECT *, {lags} FROM ({records}) WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    names = ["device_id", "us", *_values(asked)]
    if asked.has_positions:
        found, names = _with_ways(found, asked), [*BASE, "is_jump", "hop_kmh"]
    some = ", ".join(f"{hop.begin_us} AS begin_{hop.name}, {hop.amount} AS {hop.name}" for hop in _kinds(asked))
    return f"SELECT {', '.join(names)}{', ' if some else ''}{some} FROM ({found})"


def _with_ways(pairs: str, asked: Asked) -> str:
    """SQL of pairs of positions with the way between the two, unless it is a jump or they are too far apart in time."""
    known = f"latitude IS NOT NULL AND us - before_placed_us <= {BOUND_US}"
    ways = f"SELECT *, CASE WHEN {known} THEN {_HOP_KM} END AS any_km, us - before_placed_us AS hop_us FROM ({pairs})"
    is_jump = plausible_sql.jump("any_km", "hop_us", asked.jumps)
    jumps = f"SELECT *, {is_jump} AS is_jump FROM ({ways})"
    kmh = plausible_sql.kmh("way_km", "hop_us")
    return f"SELECT *, {kmh} AS hop_kmh FROM (SELECT *, CASE WHEN NOT is_jump THEN any_km END AS way_km FROM ({jumps}))"


_US_WITH = {name: f"CASE WHEN {name} IS NOT NULL THEN us END" for name in ("latitude", "speed_kmh")}


def _values(asked: Asked) -> list[str]:
    """The columns that fields are made of beside hops."""
    positions = ["latitude", "longitude", "speed_kmh", "is_left_out", "hop_kmh"]
    return positions if asked.has_positions else ["speed_kmh"]


def _parts(asked: Asked, bucket: _Bucket) -> str:
    """Records of the range, with what of their hops is in their own bucket, and the rest of hops that are cut: a row
    for each bucket, without a record."""
    kinds, names = _kinds(asked), _values(asked)
    begins = [f"begin_{hop.name}" for hop in kinds]
    begin_us = f"least({', '.join(begins)})" if len(begins) > 1 else "".join(begins)
    whole = [
        f"CASE WHEN {begin} >= start_us THEN {hop.name} ELSE {_share(hop, 'us')} END AS {hop.name}"
        for hop, begin in zip(kinds, begins, strict=True)
    ]
    cut = [
        f"CASE WHEN {begin} < us AND {begin} < end_us AND start_us < us THEN {_share(hop, 'least(us, end_us)')} END"
        for hop, begin in zip(kinds, begins, strict=True)
    ]
    own_us = bucket.of("us")
    inside = f"SELECT *, {own_us} AS start_us FROM hops_of_range WHERE us >= {asked.start_us} AND us < {asked.end_us}"
    own = f"SELECT {', '.join(['device_id', 'us', *names, *whole, 'start_us'])} FROM ({inside})"
    if not kinds:
        return own
    crosses = f"us > {asked.start_us} AND {begin_us} < {asked.end_us} "
    crosses += f"AND (us >= {asked.end_us} OR {begin_us} < {own_us})"
    crossed = f"SELECT *, {bucket.crossed(begin_us)} AS raw_us FROM hops_of_range WHERE {crosses}"
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
