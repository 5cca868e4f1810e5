"""SQL of summaries: each field as an aggregate of a device's records in one time bucket.

A hop connects two consecutive records of a device, ordered by (timestamp, id). `distance_km` uses hops between records
with a plausible position, `stopped_seconds` hops between records with a speed; other records are skipped. A hop of at
most `max_gap_us` is divided at the borders of buckets, in proportion to time. A longer hop belongs to the bucket of its
later record, because the time of the movement is unknown. A hop that is a jump has no distance. So the parts of a range
add up to the whole. Hops require a sort of all records and are computed only if a field needs them.

Pure: uses no clock, socket, file or Redis.
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
"""Decimals of sums and means: millimetres for distances; further digits would depend on the order of addition."""

MONDAY_US = EARLIEST_US + 2 * DAY_US
"""2000-01-03 UTC, the origin of buckets, as in DuckDB's `time_bucket`."""


class Field(NamedTuple):
    """A field of a summary: its SQL over a bucket's records, the data that it needs, and whether it is a time in µs."""

    sql: str
    has_positions: bool = False
    has_speeds: bool = False
    has_hops: bool = False
    is_time: bool = False
    sql_of_positions: str = ""
    """SQL of a speed field that uses the speeds of hops for records without a speed."""


class SummaryQuery(NamedTuple):
    """Definition of summaries: their fields, the duration of a bucket (None: the whole range), the rules of stops."""

    fields: Sequence[str]
    start_us: int
    end_us: int
    every_us: int | None
    stopped_kmh: float
    max_gap_us: int
    limits: Limits = Limits()
    has_speeds_of_hops: bool = False
    """True if speeds of hops replace speeds that were not sent."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of records to read."""
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
        """True if a field uses speeds; missing ones are computed from positions."""
        return any(FIELDS[field].sql_of_positions for field in self.fields)

    @property
    def jumps(self) -> Limits:
        """Plausibility limits of positions; off if no field needs positions."""
        return self.limits if self.has_positions else OFF

    @property
    def look(self) -> Look:
        """Records outside the range that hops depend on: all within `max_gap_us`, where a divided hop may begin or end,
        and the last ones of each device before it, where a longer hop may begin."""
        look = plausible_sql.look(self.max_gap_us, self.jumps, is_of_range=True)
        return look._replace(nearest=look.nearest if self.has_positions else 0, is_after=self.jumps.is_on)

    @property
    def first_us(self) -> int | None:
        """Start of the first whole bucket, possibly before the range; None if there is only one bucket."""
        start_us, every_us = self.start_us, self.every_us
        if every_us is None or (start_us - MONDAY_US) // every_us == (self.end_us - 1 - MONDAY_US) // every_us:
            return None
        return MONDAY_US + (start_us - MONDAY_US) // every_us * every_us

    def bucket_end_us(self, start_us: int) -> int:
        """The end of the bucket that starts at `start_us`."""
        if self.first_us is None or self.every_us is None:
            return self.end_us
        return min(self.first_us + ((start_us - self.first_us) // self.every_us + 1) * self.every_us, self.end_us)


def _where_any(columns: str, sql: str) -> str:
    """SQL that is null for a bucket in which no row has any of the columns."""
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
    "first": Field("min(us)", is_time=True),
    "last": Field("max(us)", is_time=True),
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
"""All fields, in the order of responses."""

# The statement --------------------------------------------------------------------------------------


def records_sql(source: str, query: SummaryQuery, after: Place | None) -> str:
    """SQL of records as input of `hops_sql` and `statement`. `source` is SQL that selects `query.columns`."""
    where = "true" if after is None else f"device_id >= {sql_text(after.device_id)}"
    if query.has_positions:
        return plausible_sql.base(source, query.limits, where, "speed_kmh" in query.columns)
    made = {"timestamp": "epoch_us(timestamp) AS us"}
    return f"SELECT {', '.join(made.get(name, name) for name in query.columns)} FROM ({source}) WHERE {where}"


def statement(source: str, query: SummaryQuery, limit: int, after: Place | None) -> str:
    """SQL that selects JSON, device, start (µs), and whether a speed is missing, of one page of summaries and of the
    next summary, if any.

    `source` is SQL of hops (`hops_sql`) if `query.has_hops`, else of records (`records_sql`). Each nested select makes
    planning slower.
    """
    bucket, hops, records = _bucket(query), "", source
    if query.has_hops:
        kind = "NOT MATERIALIZED" if query.jumps.is_on else "MATERIALIZED"  # with limits, the hops are in a table
        hops, records = f"WITH hops_of_range AS {kind} ({source}) ", _parts(query, bucket)
    start_us = "start_us" if query.has_hops else bucket.of("us")
    fields = ", ".join(f"{_sql(FIELDS[name], query)} AS {name}" for name in query.fields)
    summaries = (
        f"SELECT device_id, {start_us} AS start_us, {fields} FROM ({records}) "
        f"GROUP BY device_id, start_us {_having_after(after)} ORDER BY device_id, start_us LIMIT {limit + 1}"
    )
    speeds = [f"{name} IS NULL" for name in query.fields if FIELDS[name].sql_of_positions]
    missing = " OR ".join(speeds) or "false"
    page = f"SELECT {_json(query, bucket)} AS json, device_id, start_us, {missing} FROM ({summaries})"
    return f"{hops}{page} ORDER BY device_id, start_us"


def _sql(field: Field, query: SummaryQuery) -> str:
    return field.sql_of_positions if field.sql_of_positions and query.has_positions else field.sql


def _json(query: SummaryQuery, bucket: _Bucket) -> str:
    shown = {"device_id": "device_id", "start": bucket.start, "end": bucket.end}
    shown |= {name: time_sql(name) if FIELDS[name].is_time else name for name in query.fields}
    return f"to_json(struct_pack({', '.join(f'{_quoted(name)} := {sql}' for name, sql in shown.items())}))"


def _quoted(name: str) -> str:
    return f'"{name}"'


# Hops ------------------------------------------------------------------------------------------------


class _Hop(NamedTuple):
    """SQL of a kind of hop: the name of its amount, its start (null if it does not count) and the amount."""

    name: str
    begin_us: str
    amount: str


_HOP_KM = haversine_km("before_latitude", "before_longitude")


def _kinds(query: SummaryQuery) -> list[_Hop]:
    """The kinds of hops that the fields need. A hop that is not divided has its end as its start."""
    kinds = []
    if "distance_km" in query.fields:
        begin = f"CASE WHEN us - before_placed_us <= {query.max_gap_us} THEN before_placed_us ELSE us END"
        kinds.append(_Hop("hop_km", f"CASE WHEN way_km IS NOT NULL THEN {begin} END", "way_km"))
    if "stopped_seconds" in query.fields:
        slow = f"speed_kmh <= {query.stopped_kmh!r} AND before_speed_kmh <= {query.stopped_kmh!r}"
        known = f"{slow} AND us - before_speed_us <= {query.max_gap_us}"
        kinds.append(_Hop("stopped_us", f"CASE WHEN {known} THEN before_speed_us END", "us - begin_stopped_us"))
    return kinds


def hops_sql(records: str, query: SummaryQuery) -> str:
    """SQL of records with the hops that lead to them. `records` is SQL of records (`records_sql`)."""
    before: dict[str, str] = {}
    if query.has_positions:
        before |= {"latitude": "latitude", "longitude": "longitude", "placed_us": _US_WITH["latitude"]}
    if "stopped_seconds" in query.fields:
        before |= {"speed_kmh": "speed_kmh", "speed_us": _US_WITH["speed_kmh"]}
    lags = ", ".join(f"lag({sql} IGNORE NULLS) OVER w AS before_{name}" for name, sql in before.items())
    pairs = f"SELECT *, {lags} FROM ({records}) WINDOW w AS (PARTITION BY device_id ORDER BY us, id)"
    names = ["device_id", "us", *_values(query)]
    if query.has_positions:
        pairs, names = _with_distances(pairs, query), [*BASE, "is_jump", "hop_kmh"]
    some = ", ".join(f"{hop.begin_us} AS begin_{hop.name}, {hop.amount} AS {hop.name}" for hop in _kinds(query))
    return f"SELECT {', '.join(names)}{', ' if some else ''}{some} FROM ({pairs})"


def _with_distances(pairs: str, query: SummaryQuery) -> str:
    """SQL of pairs of positions with their distance; null for a jump or if the two are too far apart in time."""
    known = f"latitude IS NOT NULL AND us - before_placed_us <= {BOUND_US}"
    ways = f"SELECT *, CASE WHEN {known} THEN {_HOP_KM} END AS any_km, us - before_placed_us AS hop_us FROM ({pairs})"
    is_jump = plausible_sql.jump("any_km", "hop_us", query.jumps)
    jumps = f"SELECT *, {is_jump} AS is_jump FROM ({ways})"
    kmh = plausible_sql.kmh("way_km", "hop_us")
    return f"SELECT *, {kmh} AS hop_kmh FROM (SELECT *, CASE WHEN NOT is_jump THEN any_km END AS way_km FROM ({jumps}))"


_US_WITH = {name: f"CASE WHEN {name} IS NOT NULL THEN us END" for name in ("latitude", "speed_kmh")}


def _values(query: SummaryQuery) -> list[str]:
    """The columns, in addition to hops, that fields use."""
    positions = ["latitude", "longitude", "speed_kmh", "is_left_out", "hop_kmh"]
    return positions if query.has_positions else ["speed_kmh"]


def _parts(query: SummaryQuery, bucket: _Bucket) -> str:
    """SQL of the range's records, each with the part of its hops that is in the record's own bucket, and of the other
    parts of divided hops: one row without a record for each bucket."""
    kinds, names = _kinds(query), _values(query)
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
    inside = f"SELECT *, {own_us} AS start_us FROM hops_of_range WHERE us >= {query.start_us} AND us < {query.end_us}"
    own = f"SELECT {', '.join(['device_id', 'us', *names, *whole, 'start_us'])} FROM ({inside})"
    if not kinds:
        return own
    crosses = f"us > {query.start_us} AND {begin_us} < {query.end_us} "
    crosses += f"AND (us >= {query.end_us} OR {begin_us} < {own_us})"
    crossed = f"SELECT *, {bucket.crossed(begin_us)} AS raw_us FROM hops_of_range WHERE {crosses}"
    ends = f"greatest(raw_us, {query.start_us}) AS start_us, {bucket.end_us('raw_us')} AS end_us"
    pieces = f"SELECT *, {ends} FROM ({crossed})"
    nulls = [f"NULL AS {name}" for name in ("us", *names)]
    rest = f"SELECT {', '.join(['device_id', *nulls, *cut, 'start_us'])} FROM ({pieces})"
    return f"{own} UNION ALL {rest}"


def _share(hop: _Hop, until: str) -> str:
    """SQL of the part of a hop between a bucket's start and the time `until`, in proportion to time."""
    return f"{hop.name} * (({until} - greatest(begin_{hop.name}, start_us)) / (us - begin_{hop.name}))"


# Buckets ---------------------------------------------------------------------------------------------


class _Bucket(NamedTuple):
    """SQL of buckets; `start` and `end` are the two ends as texts for JSON."""

    query: SummaryQuery
    start: str
    end: str

    def of(self, us: str) -> str:
        """The start of the bucket that contains a time, µs."""
        start_us = self.query.start_us
        return str(start_us) if self.query.first_us is None else f"greatest({self._raw_us(us)}, {start_us})"

    def end_us(self, raw_us: str) -> str:
        """The end, clipped to the range, of the bucket whose unclipped start is `raw_us`."""
        end_us = self.query.end_us
        return str(end_us) if self.query.first_us is None else f"least({raw_us} + {self.query.every_us}, {end_us})"

    def crossed(self, begin_us: str) -> str:
        """Rows: unclipped starts of the buckets from `begin_us` to `us`, without the bucket that contains `us`."""
        start_us, end_us, every_us = self.query.start_us, self.query.end_us, self.query.every_us
        if self.query.first_us is None:
            behind = f"CASE WHEN us < {end_us} THEN {start_us} ELSE {end_us} END"
            return f"unnest(range({start_us}, {behind}, {end_us - start_us}))"
        first = self._raw_us(f"greatest({begin_us}, {start_us})")
        behind = f"CASE WHEN us < {end_us} THEN {self._raw_us('us')} ELSE {end_us} END"
        return f"unnest(range({first}, {behind}, {every_us}))"

    def _raw_us(self, us: str) -> str:
        first_us, every_us = self.query.first_us, self.query.every_us
        return f"({first_us} + ({us} - {first_us}) // {every_us} * {every_us})"


def _bucket(query: SummaryQuery) -> _Bucket:
    start_us, end_us, every_us, first_us = query.start_us, query.end_us, query.every_us, query.first_us
    if first_us is None:
        return _Bucket(query, sql_text(iso(start_us)), sql_text(iso(end_us)))
    ended = f"{first_us} + ((start_us - {first_us}) // {every_us} + 1) * {every_us}"
    return _Bucket(query, time_sql("start_us"), time_sql(f"least({ended}, {end_us})"))


def _having_after(after: Place | None) -> str:
    if after is None:
        return ""
    device = sql_text(after.device_id)
    return f"HAVING device_id > {device} OR (device_id = {device} AND start_us > {after.start_us})"
