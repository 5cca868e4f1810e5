"""`GET /v1/latest` in the query program: other formats than JSON, an area, or a time in the past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial

import duckdb
import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.execution.query_pool import Queries
from api.formats import FORMATS
from api.formats.format import Format
from api.geo.area import PARAMETERS as AREA
from api.geo.area import Area, area
from api.latest.as_of import MAX_BYTES, AsOfReader, Moment
from api.latest.representation import LatestAnswer, LatestPage, answer_if_decodable, seen_at, with_position
from api.latest.routes import PARAMETERS as OF_ALL
from api.latest.routes import LatestRoutes
from api.records.row_group_reader import RowGroups
from api.requests.params import moment
from api.responses import page_response, record_schema
from api.responses.negotiation import CSV_SAFE, FORMAT, chosen, kinds
from api.responses.record_schema import RecordAnswer
from api.snapshot.snapshot import Snapshots
from telemetry.archive.schema import COLUMNS
from telemetry.http.operations import Content, Operation, names, whole
from telemetry.http.problem_responses import invalid_parameter, refuse_unknown
from telemetry.model import problems

DEFAULT_WITHIN_DAYS, MAX_WITHIN_DAYS = 31, 3_660
PAGE_BYTES = MAX_BYTES
"""Size of the records of a page at which no further device is added."""

MAX_CONCURRENT_PAGES = 4
"""Maximum pages that are created concurrently; each is in memory as records and in its output format."""

POSITION_FORMATS = ("geojson", "gpx", "kml")
"""Formats that contain the newest record with a fix; with an area, all formats do."""


AT = moment("at", "Time of the fleet's state: the newest record of each device up to this time.", None)
WITHIN = whole("within_days", "With `at`: maximum age of a record, days.", DEFAULT_WITHIN_DAYS, 1, MAX_WITHIN_DAYS)

LATEST = Operation(
    "GET",
    "/v1/latest",
    "get_latest",
    "The newest record of all devices or of some",
    "latest",
    {200: Content("A page, in the order of ids", {**kinds(FORMATS), "application/json": LatestPage})},
    (*OF_ALL, FORMAT, CSV_SAFE, AT, WITHIN, *AREA),
    problems=(problems.INVALID_PARAMETER, problems.NOT_ACCEPTABLE, problems.NOT_TOGETHER),
    description="With an area, a page may have fewer devices than `limit`, or none, although `next_cursor` is not "
    "null.",
)


class Fleet:
    """Handler of `GET /v1/latest` in the query program."""

    def __init__(self, latest: LatestRoutes, snapshots: Snapshots, queries: Queries, row_groups: RowGroups) -> None:
        self._latest = latest
        self._as_of = AsOfReader(snapshots, row_groups)
        self._queries = queries
        self._pages = asyncio.Semaphore(MAX_CONCURRENT_PAGES)

    def routes(self) -> list[Route]:
        """The route."""
        return [LATEST.route(self.get_latest)]

    async def get_latest(self, request: Request) -> Response:
        """The latest records of the named devices, or a page of all devices."""
        refuse_unknown(request, names(LATEST.parameters))
        kind, where, at = chosen(request, FORMATS), area(request), _moment(request)
        async with self._pages:
            return await self._response(request, kind, where, at)

    async def _response(self, request: Request, kind: Format, where: Area | None, at: Moment | None) -> Response:
        page = await self._page(request, where, at)
        if kind is FORMATS["json"]:
            return record_schema.json(page, headers=page_response.VARY)
        shows_positions = where is not None or kind.suffix in POSITION_FORMATS
        shown = map(_position if shows_positions else _newest, page.records)
        records = [record for record in shown if record is not None]
        data = await self._queries.run(lambda connection: _written(connection, records, kind))
        return page_response.answer(request, kind, data, page.next_cursor)

    async def _page(self, request: Request, where: Area | None, moment: Moment | None) -> LatestPage:
        """A page of the devices in the area, or of all.

        Ends early when its records reach `PAGE_BYTES`, or when `MAX_SCAN_DEVICES` were examined.
        """
        limit, selection, after = self._latest.page_parameters(request)
        shown, size, has_more = list[LatestAnswer](), 0, False
        async for ids in self._latest.scan(selection, after, limit):
            async for device, answer, size_bytes in self._answers(ids.devices, moment):
                if size >= PAGE_BYTES:
                    return LatestPage(shown, after)
                after = device
                if answer is None or not (where is None or _lies_in(where, answer)):
                    continue
                if len(shown) == limit:
                    return LatestPage(shown, shown[-1].device_id)
                shown.append(answer)
                size += size_bytes
            after, has_more = ids.devices[-1], ids.has_more
            if len(shown) == limit:
                break
        return LatestPage(shown, after if has_more else None)

    async def _answers(
        self, devices: Sequence[str], moment: Moment | None
    ) -> AsyncGenerator[tuple[str, LatestAnswer | None, int], None]:
        """Each device with its latest record, None if there is none, and its approximate size in bytes."""
        if moment is None:
            async with aclosing(self._latest.batches(devices)) as batches:
                async for batch in batches:
                    for device, value in batch:
                        yield device, answer_if_decodable(device, value), len(value or b"")
            return
        rest = devices
        while rest:
            states, rest = await self._queries.run(partial(self._as_of.at, devices=rest, moment=moment))
            for state in states.values():
                answer = with_position(state.newest, seen_at(state.newest), state.position)
                yield answer.device_id, answer, state.text_bytes


def _lies_in(where: Area, answer: LatestAnswer) -> bool:
    position = answer.position
    if position is None or position.latitude is None or position.longitude is None:
        return False
    return where.holds(position.latitude, position.longitude)


def _moment(request: Request) -> Moment | None:
    days, at_us = WITHIN.of(request), AT.of(request)
    if at_us is not None:
        return Moment(at_us, days)
    if days != WITHIN.default:  # generated clients send defaults, too
        raise invalid_parameter(WITHIN.name, "requires at")
    return None


def _newest(answer: LatestAnswer) -> RecordAnswer:
    return answer


def _position(answer: LatestAnswer) -> RecordAnswer | None:
    return answer.position


def _written(connection: duckdb.DuckDBPyConnection, records: Sequence[RecordAnswer], kind: Format) -> bytes:
    return page_response.written(connection, pa.Table.from_pylist([_row(record) for record in records], COLUMNS), kind)


def _row(record: RecordAnswer) -> dict[str, object]:
    raw = record.attributes
    values = {name: getattr(record, name) for name in COLUMNS.names}
    times = {name: datetime.fromisoformat(values[name]) for name in ("timestamp", "received_at")}
    return values | times | {"attributes": None if raw is None else bytes(msgspec.Raw(raw)).decode()}
