"""The older service's addresses, and what each of them answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from api.history import Queries
from api.latest import LatestRoutes
from api.older import bodies, dates, links
from api.older.answers import Answer, Handler, OlderError, Resource, redirect
from api.older.files import List
from api.older.pages import Pages
from api.older.records import TCP_TRACKING, TRACKING, RecordSet, Shown
from collector.http import HttpLimits, Intake, off_loop, store
from telemetry import older
from telemetry.archive import DAY_US, day_us
from telemetry.fields import Arrival
from telemetry.record import EARLIEST_US, LATEST_US, Sent

TO_POST = "POST, OPTIONS"
TO_READ = "GET, HEAD, OPTIONS"
"""What the `Allow` header of every answer says."""


class OlderRoutes:
    """`POST /tracking/data/`, and of both record sets the list and the latest of a device."""

    def __init__(
        self,
        intake: Intake,
        limits: HttpLimits,
        arrival: Callable[[], Arrival],
        latest: LatestRoutes,
        queries: Queries,
        pages: Pages,
    ) -> None:
        self._intake = intake
        self._limits = limits
        self._arrival = arrival
        self._latest = latest
        self._queries = queries
        self._pages = pages

    def routes(self) -> list[Route]:
        """All routes."""
        data = Resource("Tracking Data", TO_POST, self.post_data, bodies.PARSES)
        return [
            Route("/tracking/data/", data),
            Route("/tracking/data", redirect),
            Route("/tracking/data", data),
            *self._of_set(TRACKING),
            *self._of_set(TCP_TRACKING),
        ]

    def _of_set(self, records: RecordSet) -> list[Route]:
        return [
            *self._readable(f"{records.path}/data/list", "List", self._list_of(records)),
            *self._readable(f"{records.path}/data/latest/{{device_id}}", "Latest", self._latest_of(records)),
        ]

    def _readable(self, path: str, name: str, handler: Handler) -> list[Route]:
        resource = Resource(name, TO_READ, handler, bodies.PARSES)
        return [Route(f"{path}/", resource), Route(path, redirect), Route(path, resource)]

    async def post_data(self, request: Request) -> Answer:
        """Store one record or a list; 202 means stored and visible."""
        value, size_bytes = await bodies.read(request, self._limits)
        now = self._arrival()
        echo, records = await off_loop(size_bytes, lambda: _check(value, self._limits.max_records, now))
        await store(self._intake, records, size_bytes)
        return Answer(202, {"message": older.RECEIVED, "data": echo})

    def _list_of(self, records: RecordSet) -> Handler:
        async def get_list(request: Request) -> Answer:
            asked = _asked(request, records)
            number = request.query_params.get("page", "")
            page = await self._queries.run(lambda connection: self._pages.page(connection, asked, number))
            body = {
                "count": page.total,
                "next": links.to_page(request, page.number + 1) if page.number < page.last else None,
                "previous": links.to_page(request, page.number - 1) if page.number > 1 else None,
                "results": [records.show(shown) for shown in page.records],
            }
            return Answer(200, body)

        return get_list

    def _latest_of(self, records: RecordSet) -> Handler:
        async def get_latest(request: Request) -> Answer:
            device_id = request.path_params["device_id"]
            latest = await self._latest.latest(device_id)
            slot = None if latest is None else records.newest(latest)
            if slot is None:
                return Answer(404, {"message": "No data found"})
            return Answer(200, records.show(Shown.of(slot.stored(device_id))))

        return get_latest


def _asked(request: Request, records: RecordSet) -> List:
    """What the arguments ask for; empty ones are as if absent, and of one that comes twice the last counts."""
    arguments = request.query_params
    start, end = arguments.get("start_date"), arguments.get("end_date")
    today = datetime.now(UTC).date()
    return List(
        records,
        arguments.get("device_id", ""),
        max(day_us(dates.first_day(start, today)), EARLIEST_US) if start else EARLIEST_US,
        min(day_us(dates.last_day(end, today)) + DAY_US, LATEST_US) if end else LATEST_US,
    )


def _check(value: object, max_records: int, now: Arrival) -> tuple[list[dict[str, Any]], list[Sent]]:
    values = value if isinstance(value, list) else [value]
    if len(values) > max_records:
        raise OlderError(413, {"detail": f"A request may hold {max_records} records, not {len(values)}."})
    checked = [older.check(one, "http", now) for one in values]
    if any(one.errors for one in checked):
        raise OlderError(400, [one.errors for one in checked])
    return [one.echo for one in checked], [one.sent for one in checked if one.sent is not None]
