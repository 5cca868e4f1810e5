"""`GET /v1/latest` beyond plain JSON: in other formats, of an area, and where the fleet was at a moment."""

from __future__ import annotations

import re
from collections.abc import Sequence

import duckdb
import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from api import answers, paged, params
from api.answers import RecordAnswer
from api.area import PARAMETERS as AREA
from api.area import Area, area
from api.formats import FORMATS
from api.formats.choice import chosen
from api.formats.contract import Format
from api.latest import LatestAnswer, LatestPage, LatestRoutes, with_position
from api.past import Moment, past
from api.queries import Queries
from api.snapshot import Snapshots
from collector.http import invalid_parameter, refuse_unknown
from telemetry.columns import COLUMNS

WITHIN_DAYS, MOST_DAYS = 31, 3_660
PLACES = ("geojson", "gpx", "kml")
"""Formats of places: they show the newest record with a fix, as do all where an area is asked for."""


class Fleet:
    """`GET /v1/latest` as the query program answers it."""

    PARAMETERS = (*LatestRoutes.PARAMETERS, "format", "at", "within_days", *AREA)

    def __init__(self, latest: LatestRoutes, snapshots: Snapshots, queries: Queries) -> None:
        self._latest = latest
        self._snapshots = snapshots
        self._queries = queries

    async def get_latest(self, request: Request) -> Response:
        """The latest of the devices named, or a page of all."""
        refuse_unknown(request, self.PARAMETERS)
        kind, where, moment = chosen(request, FORMATS), area(request), _moment(request)
        page = await self._page(request, where, moment)
        if kind is FORMATS["json"]:
            return answers.json(page, headers=paged.VARY)
        shows_places = where is not None or kind.suffix in PLACES
        records = [record for record in map(_position if shows_places else _newest, page.records) if record is not None]
        data = await self._queries.run(lambda connection: _written(connection, records, kind))
        return paged.answer(request, kind, data, page.next_cursor)

    async def _page(self, request: Request, where: Area | None, moment: Moment | None) -> LatestPage:
        """A page of those that lie where they should: found among all, a page after the other."""
        limit, asked, after = self._latest.asked(request)
        found: list[LatestAnswer] = []
        while True:
            devices = await self._latest.devices(asked, after, limit + 1)
            answered = await self._answers(devices[:limit], moment)
            found += [one for one in answered if where is None or _lies_in(where, one)]
            if len(found) > limit:
                return LatestPage(found[:limit], found[limit - 1].device_id)
            if len(devices) <= limit:
                return LatestPage(found, None)
            after = devices[limit - 1]
            if len(found) == limit:
                return LatestPage(found, after)

    async def _answers(self, devices: Sequence[str], moment: Moment | None) -> list[LatestAnswer]:
        if moment is None:
            return await self._latest.answers(devices)
        found = await self._queries.run(lambda connection: past(connection, self._snapshots, devices, moment))
        return [with_position(one.newest, one.newest.received_at, one.position) for one in found.values()]


def _lies_in(where: Area, one: LatestAnswer) -> bool:
    place = one.position
    if place is None or place.latitude is None or place.longitude is None:
        return False
    return where.holds(place.latitude, place.longitude)


def _moment(request: Request) -> Moment | None:
    text = request.query_params.get("within_days", str(WITHIN_DAYS))
    if not (re.fullmatch(r"\d{1,4}", text, re.ASCII) and 1 <= int(text) <= MOST_DAYS):
        raise invalid_parameter("within_days", f"must be a whole number from 1 to {MOST_DAYS}")
    if "at" not in request.query_params:
        if "within_days" in request.query_params:
            raise invalid_parameter("within_days", "is of use only with at")
        return None
    if not request.query_params["at"].strip():
        raise invalid_parameter("at", "must be a date, a time like 2026-11-24T10:25:00Z, or an epoch in s")
    return Moment(params.instant(request, "at", 0, of_day_us=0), int(text))


def _newest(one: LatestAnswer) -> RecordAnswer:
    return one


def _position(one: LatestAnswer) -> RecordAnswer | None:
    return one.position


def _written(connection: duckdb.DuckDBPyConnection, records: Sequence[RecordAnswer], kind: Format) -> bytes:
    return paged.written(connection, pa.Table.from_pylist([_row(one) for one in records], COLUMNS), kind)


def _row(record: RecordAnswer) -> dict[str, object]:
    raw = record.attributes
    values = {name: getattr(record, name) for name in COLUMNS.names}
    return values | {"attributes": None if raw is None else bytes(msgspec.Raw(raw)).decode()}
