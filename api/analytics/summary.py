"""Summaries: what each device did in each stretch of time, worked out from its records when it is asked."""

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

from api.analytics.hourly_rollup import WholeHours
from api.analytics.summary_sql import FIELDS, Asked, hops_sql, records_sql, statement
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
MOST_EVERY_US = 31 * DAY_US

STOPPED_KMH, MOST_KMH = 3.0, 1_000.0
"""Slower than people walk; a receiver at rest wanders about that fast."""

MAX_GAP_S, MOST_GAP_S = 300.0, 31 * 86_400.0
"""Devices that report every minute or two while they stand have not fallen silent."""

_EVERY = re.compile(r"(\d{1,5})([mhd])", re.ASCII)


def every_us(text: str) -> int:
    """µs of a time from a minute to 31 days."""
    found = _EVERY.fullmatch(text)
    us = int(found[1]) * UNITS_US[found[2]] if found else 0
    if not MINUTE_US <= us <= MOST_EVERY_US:
        raise InvalidValue("must be a number of minutes, hours or days from 1m to 31d, like 15m, 1h, 7d")
    return us


def fields(text: str) -> list[str]:
    """Names separated by commas, in the order of answers."""
    named = text.split(",")
    if not set(named) <= FIELDS.keys():
        raise InvalidValue(f"must be names separated by commas, out of {', '.join(FIELDS)}")
    return [name for name in FIELDS if name in named]


EVERY = Parameter[int | None](
    "every",
    "How long a bucket is, 1m to 31d; without it the whole range is one.",
    {"type": "string", "pattern": "^[0-9]{1,5}[mhd]$"},
    every_us,
    default=None,
)
NAMED = Parameter(
    "fields",
    "The fields that are wanted, with commas; all unless given.",
    {"type": "array", "items": {"type": "string", "enum": list(FIELDS)}, "minItems": 1},
    fields,
    default=list(FIELDS),
)
STOPPED = number("stopped_kmh", "The greatest speed of a device that stands still.", STOPPED_KMH, 0, MOST_KMH)
GAP = number("max_gap_s", "A longer time without a record is not counted as standing.", MAX_GAP_S, 1, MOST_GAP_S)


class SummaryAnswer(Struct, frozen=True):
    """What a device did in a bucket; `end` is exclusive. Of the other fields those that were asked for are there. A
    bucket that lies between two records has a `count` of 0, and neither `first` nor `last`."""

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
    """Summaries in the order of devices and time, as DuckDB writes them; `next_cursor` is null at the end."""

    summaries: list[SummaryAnswer]
    next_cursor: str | None


SUMMARY = Operation(
    "GET",
    "/v1/summary",
    "get_summary",
    "What devices did in each stretch of time",
    "worked out",
    {200: Content("A page, in the order of devices and time", {"application/json": SummariesPage})},
    (DEVICE_ID, START, END, EVERY, NAMED, STOPPED, GAP, *LIMITS, LIMIT, PLACE),
    problems=(problems.INVALID_PARAMETER, problems.NOT_TOGETHER),
)


class Question(NamedTuple):
    """What one page asks for."""

    wanted: Wanted
    asked: Asked
    limit: int = params.DEFAULT_LIMIT
    after: Place | None = None


class _Key(Struct, frozen=True):
    device_id: str
    start: str


_KEYS, _RAW = msgspec.json.Decoder(list[_Key]), msgspec.json.Decoder(list[msgspec.Raw])


class Page(NamedTuple):
    """Summaries as a JSON array, where the next page begins behind, if there is one, and devices with a summary that
    lacks a speed."""

    summaries: bytes
    after: Place | None
    without_speed: Sequence[str] = ()

    def with_others(self, page: Page) -> Page:
        """The same summaries, those that another page has, too, as they are there."""
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


NOTHING = Page(b"[]", None)


def page(
    connection: duckdb.DuckDBPyConnection,
    snapshots: Snapshots,
    question: Question,
    whole_hours: WholeHours | None = None,
) -> Page:
    """One page, of one snapshot of archive and tail. Speeds are worked out from positions only if one was not sent."""
    found = _page(connection, snapshots, question, whole_hours)
    if not found.without_speed or question.asked.has_positions:
        return found
    asked = question.asked._replace(has_speeds_of_hops=True)
    if len(found.without_speed) > params.MAX_DEVICES:
        return _page(connection, snapshots, question._replace(asked=asked), None)
    wanted = question.wanted._replace(devices=found.without_speed)
    return found.with_others(_page(connection, snapshots, question._replace(wanted=wanted, asked=asked), None))


def _page(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question, whole_hours: WholeHours | None
) -> Page:
    wanted, asked, limit, after = question
    if wanted.start_us >= wanted.end_us:
        return NOTHING
    snapshot = snapshots.take(asked.look.wide(wanted) if asked.has_hops else wanted)
    unsaved = snapshot.some(asked.columns)
    if not snapshot.files and unsaved.num_rows == 0:
        return NOTHING
    if whole_hours is not None and not asked.has_hops:
        found = whole_hours.summaries(connection, snapshot.files, unsaved, wanted, asked, after, limit + 1)
        if found is not None:
            return _of_columns(found, asked, limit)
    return _of_duckdb(connection, snapshot, unsaved, question)


def _of_duckdb(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, unsaved: pa.Table, question: Question
) -> Page:
    wanted, asked, limit, after = question
    if has_tail := unsaved.num_rows > 0:
        connection.register("tail", unsaved)
    if asked.has_hops:
        source = Around(connection, snapshot, asked.columns, has_tail).source(wanted, asked.look)
    else:
        source = records_in(snapshot.files, wanted, asked.columns, has_tail)
    if source is None:
        return NOTHING
    rows = _rows(connection, records_sql(source, asked, after), question)
    shown = rows[:limit]
    texts = ",".join(text for text, *_ in shown)
    without_speed = sorted({device for _, device, _, is_missing in shown if is_missing})
    return Page(f"[{texts}]".encode(), Place(*shown[-1][1:3]) if len(rows) > limit else None, without_speed)


def _rows(connection: duckdb.DuckDBPyConnection, records: str, question: Question) -> list[tuple[str, str, int, bool]]:
    asked, limit, after = question.asked, question.limit, question.after
    if not asked.has_hops:
        return connection.execute(statement(records, asked, limit, after)).fetchall()
    with plausible_sql.settled(connection, records, partial(hops_sql, asked=asked), asked.jumps) as hops:
        return connection.execute(statement(hops, asked, limit, after)).fetchall()


def _of_columns(found: pa.Table, asked: Asked, limit: int) -> Page:
    """The same of summaries whose fields are columns."""
    shown = {
        name: column.to_pylist() for name, column in zip(found.column_names, found.slice(0, limit).columns, strict=True)
    }
    devices, starts_us = shown["device_id"], shown["start_us"]
    ends = {us: (iso(us), iso(asked.behind_us(us))) for us in set(starts_us)}
    shown |= {name: times(found.column(name).slice(0, limit)) for name in asked.fields if FIELDS[name].is_moment}
    shown |= {"start": [ends[us][0] for us in starts_us], "end": [ends[us][1] for us in starts_us]}
    columns = (shown.get(name, repeat(UNSET)) for name in SummaryAnswer.__struct_fields__)
    summaries = record_schema.encode(list(map(SummaryAnswer, *columns)))
    speeds = [shown[name] for name in asked.fields if FIELDS[name].sql_of_positions]
    without_speed = sorted(
        {device for some in speeds if None in some for device, kmh in zip(devices, some, strict=True) if kmh is None}
    )
    return Page(summaries, Place(devices[-1], starts_us[-1]) if found.num_rows > limit else None, without_speed)


class Summaries:
    """`GET /v1/summary`."""

    def __init__(self, snapshots: Snapshots, queries: Queries, max_page_records: int) -> None:
        self._snapshots = snapshots
        self._queries = queries
        self._max_page_records = max_page_records
        self._whole_hours = WholeHours()

    def routes(self) -> list[Route]:
        """The route."""
        return [SUMMARY.route(self.get_summary)]

    async def get_summary(self, request: Request) -> Response:
        """Summaries of a range, of the devices named or of all."""
        refuse_unknown(request, names(SUMMARY.parameters))
        devices, (start_us, end_us) = key_devices.devices(request), params.span(request)
        question = Question(
            Wanted(devices.named, start_us, end_us, prefix=devices.prefix),
            Asked(
                NAMED.of(request),
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
        return page(connection, self._snapshots, question, self._whole_hours).body
