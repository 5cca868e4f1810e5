"""Summaries: what each device did in each stretch of time, worked out from its records when it is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import duckdb
from starlette.requests import Request
from starlette.responses import Response

from api import answers, bound, params, tail
from api.history import records_in
from api.params import Place
from api.queries import Queries
from api.snapshot import Snapshots, Wanted
from api.summary_sql import FIELDS, Asked, statement
from collector.http import invalid_parameter, refuse_unknown
from telemetry.days import DAY_US

MINUTE_US = 60_000_000
UNITS_US = {"m": MINUTE_US, "h": 60 * MINUTE_US, "d": DAY_US}
MOST_EVERY_US = 31 * DAY_US

STOPPED_KMH, MOST_KMH = 3.0, 1_000.0
"""Slower than people walk; a receiver at rest wanders about that fast."""

MAX_GAP_S, MOST_GAP_S = 300.0, 31 * 86_400.0
"""Devices that report every minute or two while they stand have not fallen silent."""

_EVERY = re.compile(r"(\d{1,5})([mhd])", re.ASCII)


class Question(NamedTuple):
    """What one page asks for."""

    wanted: Wanted
    asked: Asked
    limit: int = params.DEFAULT_LIMIT
    after: Place | None = None


class Page(NamedTuple):
    """Summaries as JSON, and where the next page begins behind, if there is one."""

    summaries: Sequence[str]
    after: Place | None

    @property
    def body(self) -> bytes:
        """The JSON of the page."""
        cursor = None if self.after is None else str(self.after)
        return (
            b'{"summaries":[' + ",".join(self.summaries).encode() + b'],"next_cursor":' + answers.encode(cursor) + b"}"
        )


def page(connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question) -> Page:
    """One page, of one snapshot of archive and tail."""
    wanted, asked, limit, after = question
    if wanted.start_us >= wanted.end_us:
        return Page([], None)
    files, entries, shards = snapshots.take_raw(wanted)
    unsaved = tail.table(entries, shards, asked.columns)
    if has_tail := unsaved.num_rows > 0:
        connection.register("tail", unsaved)
    elif not files:
        return Page([], None)
    source = records_in(files, wanted, asked.columns, has_tail)
    rows = connection.execute(statement(source, asked, limit, after)).fetchall()
    shown = rows[:limit]
    return Page([text for text, _, _ in shown], Place(*shown[-1][1:]) if len(rows) > limit else None)


class Summaries:
    """`GET /v1/summary`."""

    PARAMETERS = ("device_id", "start", "end", "every", "fields", "stopped_kmh", "max_gap_s", "limit", "cursor")

    def __init__(self, snapshots: Snapshots, queries: Queries, max_page_records: int) -> None:
        self._snapshots = snapshots
        self._queries = queries
        self._max_page_records = max_page_records

    async def get_summary(self, request: Request) -> Response:
        """Summaries of a range, of the devices named or of all."""
        refuse_unknown(request, self.PARAMETERS)
        devices, (start_us, end_us) = bound.devices(request), params.span(request)
        question = Question(
            Wanted(devices.named, start_us, end_us, prefix=devices.prefix),
            Asked(
                fields(request),
                start_us,
                end_us,
                every_us(request),
                params.number(request, "stopped_kmh", STOPPED_KMH, 0, MOST_KMH),
                round(1e6 * params.number(request, "max_gap_s", MAX_GAP_S, 1, MOST_GAP_S)),
            ),
            params.limit(request, self._max_page_records),
            params.place(request),
        )
        data = await self._queries.run(lambda connection: page(connection, self._snapshots, question).body)
        return Response(data, media_type="application/json")


def every_us(request: Request) -> int | None:
    """`every`, a time from a minute to 31 days; None where it isn't given."""
    text = request.query_params.get("every")
    if text is None:
        return None
    found = _EVERY.fullmatch(text)
    us = int(found[1]) * UNITS_US[found[2]] if found else 0
    if not MINUTE_US <= us <= MOST_EVERY_US:
        raise invalid_parameter("every", "must be a number of minutes, hours or days from 1m to 31d, like 15m, 1h, 7d")
    return us


def fields(request: Request) -> list[str]:
    """`fields`, separated by commas, in the order of answers; all where it isn't given."""
    text = request.query_params.get("fields")
    named = list(FIELDS) if text is None else text.split(",")
    if not set(named) <= FIELDS.keys():
        raise invalid_parameter("fields", f"must be names separated by commas, out of {', '.join(FIELDS)}")
    return [name for name in FIELDS if name in named]
