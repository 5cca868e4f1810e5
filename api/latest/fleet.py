"""`GET /v1/latest` beyond plain JSON: in other formats, of an area, and where the fleet was at a moment."""

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
from api.latest.as_of import MOST_BYTES, Moment, PastReader
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

WITHIN_DAYS, MOST_DAYS = 31, 3_660
PAGE_BYTES = MOST_BYTES
"""Size of the records of a page at which no further device is put into it."""

PAGES_AT_ONCE = 4
"""Concurrent pages in the making: each is in memory as records and as what is written of them."""

PLACES = ("geojson", "gpx", "kml")
"""Formats of places: they show the newest record with a fix, as do all where an area is asked for."""


AT = moment("at", "Where the fleet was then: the newest record of each device up to this moment.", None)
WITHIN = whole("within_days", "With `at`: how many days back it may lie.", WITHIN_DAYS, 1, MOST_DAYS)

LATEST = Operation(
    "GET",
    "/v1/latest",
    "get_latest",
    "The newest record of all devices, or of some",
    "latest",
    {200: Content("A page, in the order of ids", {**kinds(FORMATS), "application/json": LatestPage})},
    (*OF_ALL, FORMAT, CSV_SAFE, AT, WITHIN, *AREA),
    problems=(problems.INVALID_PARAMETER, problems.NOT_ACCEPTABLE, problems.NOT_TOGETHER),
    description="A page for which many devices elsewhere were passed over may be short, or empty: "
    "`next_cursor` goes on.",
)


class Fleet:
    """`GET /v1/latest` as the query program answers it."""

    def __init__(self, latest: LatestRoutes, snapshots: Snapshots, queries: Queries, row_groups: RowGroups) -> None:
        self._latest = latest
        self._past = PastReader(snapshots, row_groups)
        self._queries = queries
        self._making = asyncio.Semaphore(PAGES_AT_ONCE)

    def routes(self) -> list[Route]:
        """The route."""
        return [LATEST.route(self.get_latest)]

    async def get_latest(self, request: Request) -> Response:
        """The latest of the devices named, or a page of all."""
        refuse_unknown(request, names(LATEST.parameters))
        kind, where, at = chosen(request, FORMATS), area(request), _moment(request)
        async with self._making:
            return await self._made(request, kind, where, at)

    async def _made(self, request: Request, kind: Format, where: Area | None, at: Moment | None) -> Response:
        page = await self._page(request, where, at)
        if kind is FORMATS["json"]:
            return record_schema.json(page, headers=page_response.VARY)
        shows_places = where is not None or kind.suffix in PLACES
        records = [record for record in map(_position if shows_places else _newest, page.records) if record is not None]
        data = await self._queries.run(lambda connection: _written(connection, records, kind))
        return page_response.answer(request, kind, data, page.next_cursor)

    async def _page(self, request: Request, where: Area | None, moment: Moment | None) -> LatestPage:
        """A page of those that lie where they should: found among all, some after the other.

        It ends early at a device with which it has `PAGE_BYTES`, and after `MAX_SCAN_DEVICES`.
        """
        limit, asked, after = self._latest.asked(request)
        found, size, are_more = list[LatestAnswer](), 0, False
        async for ids in self._latest.scan(asked, after, limit):
            async for device, one, size_bytes in self._answers(ids.devices, moment):
                if size >= PAGE_BYTES:
                    return LatestPage(found, after)
                after = device
                if one is None or not (where is None or _lies_in(where, one)):
                    continue
                if len(found) == limit:
                    return LatestPage(found, found[-1].device_id)
                found.append(one)
                size += size_bytes
            after, are_more = ids.devices[-1], ids.are_more
            if len(found) == limit:
                break
        return LatestPage(found, after if are_more else None)

    async def _answers(
        self, devices: Sequence[str], moment: Moment | None
    ) -> AsyncGenerator[tuple[str, LatestAnswer | None, int], None]:
        """Each device with its answer, None if there is none, and about how many bytes that has."""
        if moment is None:
            async with aclosing(self._latest.batches(devices)) as batches:
                async for batch in batches:
                    for device, value in batch:
                        yield device, answer_if_decodable(device, value), len(value or b"")
            return
        rest = devices
        while rest:
            found, rest = await self._queries.run(partial(self._past.at, devices=rest, moment=moment))
            for one in found.values():
                answer = with_position(one.newest, seen_at(one.newest), one.position)
                yield answer.device_id, answer, one.text_bytes


def _lies_in(where: Area, one: LatestAnswer) -> bool:
    place = one.position
    if place is None or place.latitude is None or place.longitude is None:
        return False
    return where.holds(place.latitude, place.longitude)


def _moment(request: Request) -> Moment | None:
    days, at_us = WITHIN.of(request), AT.of(request)
    if at_us is not None:
        return Moment(at_us, days)
    if days != WITHIN.default:  # generated clients send defaults, too
        raise invalid_parameter(WITHIN.name, "is of use only with at")
    return None


def _newest(one: LatestAnswer) -> RecordAnswer:
    return one


def _position(one: LatestAnswer) -> RecordAnswer | None:
    return one.position


def _written(connection: duckdb.DuckDBPyConnection, records: Sequence[RecordAnswer], kind: Format) -> bytes:
    return page_response.written(connection, pa.Table.from_pylist([_row(one) for one in records], COLUMNS), kind)


def _row(record: RecordAnswer) -> dict[str, object]:
    raw = record.attributes
    values = {name: getattr(record, name) for name in COLUMNS.names}
    times = {name: datetime.fromisoformat(values[name]) for name in ("timestamp", "received_at")}
    return values | times | {"attributes": None if raw is None else bytes(msgspec.Raw(raw)).decode()}
