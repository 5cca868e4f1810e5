"""`GET /v1/summary`: aggregates of each device and time bucket, computed from records for each request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import repeat
from typing import NamedTuple

import duckdb
import msgspec
import pyarrow as pa
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.analytics.hourly_rollup import HourlyRollup
from api.analytics.summary_sql import FIELDS, SummaryQuery, hops_sql, records_sql, statement
from api.execution.query_pool import Queries
from api.positions import plausible_sql
from api.positions.parameters import PARAMETERS as LIMITS
from api.positions.parameters import limits_of
from api.requests import key_devices, params
from api.requests.params import DEVICE_ID, END, LIMIT, PLACE, START, Place
from api.responses import record_schema
from api.responses.json_columns import times
from api.snapshot.neighbours import Around
from api.snapshot.record_sql import records_in
from api.snapshot.snapshot import Snapshot, Snapshots, Wanted
from telemetry.http.operations import Content, InvalidValue, Operation, Parameter, names, number
from telemetry.http.problem_responses import refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import DAY_US, TimeText, iso

MINUTE_US = 60_000_000
UNITS_US = {"m": MINUTE_US, "h": 60 * MINUTE_US, "d": DAY_US}
MAX_EVERY_US = 31 * DAY_US

DEFAULT_STOPPED_KMH, MAX_STOPPED_KMH = 3.0, 1_000.0
"""Slower than walking; the position of a receiver at rest drifts at about this speed."""

DEFAULT_MAX_GAP_S, MAX_MAX_GAP_S = 300.0, 31 * 86_400.0
"""A device that stands still may report only every minute or two; after a longer gap its state is unknown."""

_EVERY = re.compile(r"(\d{1,5})([mhd])", re.ASCII)


def every_us(text: str) -> int:
    """A duration from one minute to 31 days, in µs."""
    match = _EVERY.fullmatch(text)
    us = int(match[1]) * UNITS_US[match[2]] if match else 0
    if not MINUTE_US <= us <= MAX_EVERY_US:
        raise InvalidValue("must be a number of minutes, hours or days from 1m to 31d, like 15m, 1h, 7d")
    return us


def fields(text: str) -> list[str]:
    """Field names from a comma-separated list, in the order of responses."""
    named = text.split(",")
    if not set(named) <= FIELDS.keys():
        raise InvalidValue(f"must be names separated by commas, out of {', '.join(FIELDS)}")
    return [name for name in FIELDS if name in named]


EVERY = Parameter[int | None](
    "every",
    "Duration of a bucket, 1m to 31d; without it, the whole range is one bucket.",
    {"type": "string", "pattern": "^[0-9]{1,5}[mhd]$"},
    every_us,
    default=None,
)
FIELD_NAMES = Parameter(
    "fields",
    "Fields to return, separated by commas (default: all).",
    {"type": "array", "items": {"type": "string", "enum": list(FIELDS)}, "minItems": 1},
    fields,
    default=list(FIELDS),
)
STOPPED = number(
    "stopped_kmh", "Maximum speed of a device that counts as stopped.", DEFAULT_STOPPED_KMH, 0, MAX_STOPPED_KMH
)
GAP = number(
    "max_gap_s", "A longer time without a record does not count as stopped.", DEFAULT_MAX_GAP_S, 1, MAX_MAX_GAP_S
)


class SummaryAnswer(Struct, frozen=True):
    """Aggregates of a device in a bucket; `end` is exclusive. Only the requested fields are present. A bucket that lies
    between two records has a `count` of 0; its `first` and `last` are null."""

    device_id: str
    start: TimeText
    end: TimeText
    count: int | UnsetType = UNSET
    first: TimeText | UnsetType | None = UNSET
    last: TimeText | UnsetType | None = UNSET
    distance_km: float | UnsetType | None = UNSET
    speed_kmh_mean: float | UnsetType | None = UNSET
    speed_kmh_max: float | UnsetType | None = UNSET
    stopped_seconds: float | UnsetType | None = UNSET
    bbox: list[float] | UnsetType | None = UNSET
    implausible: int | UnsetType = UNSET


class SummariesPage(Struct, frozen=True):
    """Summaries in the order of devices and time; `next_cursor` is null on the last page."""

    summaries: list[SummaryAnswer]
    next_cursor: str | None


SUMMARY = Operation(
    "GET",
    "/v1/summary",
    "get_summary",
    "Aggregates of devices in each time bucket",
    "analytics",
    {200: Content("A page, in the order of devices and time", {"application/json": SummariesPage})},
    (DEVICE_ID, START, END, EVERY, FIELD_NAMES, STOPPED, GAP, *LIMITS, LIMIT, PLACE),
    problems=(problems.INVALID_PARAMETER, problems.NOT_TOGETHER),
)


class Question(NamedTuple):
    """The parameters of one page."""

    wanted: Wanted
    query: SummaryQuery
    limit: int = params.DEFAULT_LIMIT
    after: Place | None = None


class _Key(Struct, frozen=True):
    device_id: str
    start: str


_KEYS, _RAW = msgspec.json.Decoder(list[_Key]), msgspec.json.Decoder(list[msgspec.Raw])


class Page(NamedTuple):
    """Summaries as a JSON array, the place after which the next page begins, if any, and the devices with a summary
    that lacks a speed."""

    summaries: bytes
    after: Place | None
    without_speed: Sequence[str] = ()

    def replaced_from(self, page: Page) -> Page:
        """These summaries; those that `page` has, too, are taken from `page`."""
        own, others = (
            zip(_KEYS.decode(part.summaries), _RAW.decode(part.summaries), strict=True) for part in (self, page)
        )
        known = dict(others)
        return Page(record_schema.encode([known.get(key, summary) for key, summary in own]), self.after)

    @property
    def body(self) -> bytes:
        """The JSON of the page."""
        cursor = None if self.after is None else str(self.after)
        return b'{"summaries":' + self.summaries + b',"next_cursor":' + record_schema.encode(cursor) + b"}"


EMPTY = Page(b"[]", None)


def page(
    connection: duckdb.DuckDBPyConnection,
    snapshots: Snapshots,
    question: Question,
    rollup: HourlyRollup | None = None,
) -> Page:
    """One page, of one snapshot of archive and unsaved records. Speeds are computed from positions only for devices
    that sent none."""
    sent = _page(connection, snapshots, question, rollup)
    if not sent.without_speed or question.query.has_positions:
        return sent
    query = question.query._replace(has_speeds_of_hops=True)
    if len(sent.without_speed) > params.MAX_DEVICES:
        return _page(connection, snapshots, question._replace(query=query), None)
    wanted = question.wanted._replace(devices=sent.without_speed)
    return sent.replaced_from(_page(connection, snapshots, question._replace(wanted=wanted, query=query), None))


def _page(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question, rollup: HourlyRollup | None
) -> Page:
    wanted, query, limit, after = question
    if wanted.start_us >= wanted.end_us:
        return EMPTY
    snapshot = snapshots.take(query.look.wide(wanted) if query.has_hops else wanted)
    unsaved = snapshot.some(query.columns)
    if not snapshot.files and unsaved.num_rows == 0:
        return EMPTY
    if rollup is not None and not query.has_hops:
        summaries = rollup.summaries(connection, snapshot.files, unsaved, wanted, query, after, limit + 1)
        if summaries is not None:
            return _page_from_rollup(summaries, query, limit)
    return _page_from_duckdb(connection, snapshot, unsaved, question)


def _page_from_duckdb(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, unsaved: pa.Table, question: Question
) -> Page:
    wanted, query, limit, after = question
    if has_tail := unsaved.num_rows > 0:
        connection.register("tail", unsaved)
    if query.has_hops:
        source = Around(connection, snapshot, query.columns, has_tail).source(wanted, query.look)
    else:
        source = records_in(snapshot.files, wanted, query.columns, has_tail)
    if source is None:
        return EMPTY
    rows = _rows(connection, records_sql(source, query, after), question)
    shown = rows[:limit]
    texts = ",".join(text for text, *_ in shown)
    without_speed = sorted({device for _, device, _, is_missing in shown if is_missing})
    return Page(f"[{texts}]".encode(), Place(*shown[-1][1:3]) if len(rows) > limit else None, without_speed)


def _rows(connection: duckdb.DuckDBPyConnection, records: str, question: Question) -> list[tuple[str, str, int, bool]]:
    query, limit, after = question.query, question.limit, question.after
    if not query.has_hops:
        return connection.execute(statement(records, query, limit, after)).fetchall()
    with plausible_sql.settled(connection, records, partial(hops_sql, query=query), query.jumps) as hops:
        return connection.execute(statement(hops, query, limit, after)).fetchall()


def _page_from_rollup(rows: pa.Table, query: SummaryQuery, limit: int) -> Page:
    """A page of summaries whose fields are columns."""
    table = rows.slice(0, limit)
    shown = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    devices, starts_us = shown["device_id"], shown["start_us"]
    ends = {us: (iso(us), iso(query.bucket_end_us(us))) for us in set(starts_us)}
    shown |= {name: times(table.column(name)) for name in query.fields if FIELDS[name].is_time}
    shown |= {"start": [ends[us][0] for us in starts_us], "end": [ends[us][1] for us in starts_us]}
    columns = (shown.get(name, repeat(UNSET)) for name in SummaryAnswer.__struct_fields__)
    summaries = record_schema.encode(list(map(SummaryAnswer, *columns)))
    speeds = [shown[name] for name in query.fields if FIELDS[name].sql_of_positions]
    without_speed = sorted(
        {device for some in speeds if None in some for device, kmh in zip(devices, some, strict=True) if kmh is None}
    )
    return Page(summaries, Place(devices[-1], starts_us[-1]) if rows.num_rows > limit else None, without_speed)


class Summaries:
    """`GET /v1/summary`."""

    def __init__(self, snapshots: Snapshots, queries: Queries, max_page_records: int) -> None:
        self._snapshots = snapshots
        self._queries = queries
        self._max_page_records = max_page_records
        self._rollup = HourlyRollup()

    def routes(self) -> list[Route]:
        """The route."""
        return [SUMMARY.route(self.get_summary)]

    async def get_summary(self, request: Request) -> Response:
        """Summaries of a range, for the named devices or all."""
        refuse_unknown(request, names(SUMMARY.parameters))
        devices, (start_us, end_us) = key_devices.devices(request), params.span(request)
        question = Question(
            Wanted(devices.named, start_us, end_us, prefix=devices.prefix),
            SummaryQuery(
                FIELD_NAMES.of(request),
                start_us,
                end_us,
                EVERY.of(request),
                STOPPED.of(request),
                round(1e6 * GAP.of(request)),
                limits_of(request),
            ),
            params.limit(request, self._max_page_records),
            params.place(request),
        )
        data = await self._queries.run(lambda connection: self._body(connection, question))
        return Response(data, media_type="application/json")

    def _body(self, connection: duckdb.DuckDBPyConnection, question: Question) -> bytes:
        return page(connection, self._snapshots, question, self._rollup).body
