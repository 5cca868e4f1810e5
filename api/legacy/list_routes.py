"""Paged lists of both record sets of the older service."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.routing import Route

from api.execution.query_pool import Queries
from api.legacy.paging.pages import Pages
from api.legacy.paging.row_blocks import List
from api.legacy.wire import date_parser, page_links
from api.legacy.wire.responses import Answer, Handler, readable
from api.legacy.wire.serializers import TCP_TRACKING, TRACKING, RecordSet
from api.requests import key_devices
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import DAY_US, day_us


class ListRoutes:
    """`GET /tracking/data/list/` and `GET /tcp_tracking/data/list/`."""

    def __init__(self, queries: Queries, pages: Pages) -> None:
        self._queries = queries
        self._pages = pages

    def routes(self) -> list[Route]:
        """All routes."""
        sets = (TRACKING, TCP_TRACKING)
        return [route for one in sets for route in readable(f"{one.path}/data/list", "List", self._list_of(one))]

    def _list_of(self, records: RecordSet) -> Handler:
        async def get_list(request: Request) -> Answer:
            query = _query(request, records)
            number = request.query_params.get("page", "")
            page = await self._queries.run(lambda connection: self._pages.page(connection, query, number))
            body = {
                "count": page.total,
                "next": page_links.to_page(request, page.number + 1) if page.number < page.last else None,
                "previous": page_links.to_page(request, page.number - 1) if page.number > 1 else None,
                "results": [records.show(shown) for shown in page.records],
            }
            return Answer(200, body)

        return get_list


def _query(request: Request, records: RecordSet) -> List:
    """The list that the parameters select. Empty parameters are ignored; the last of repeated ones counts."""
    arguments = request.query_params
    start, end = arguments.get("start_date"), arguments.get("end_date")
    today = datetime.now(UTC).date()
    return List(
        records,
        key_devices.only(request.scope, arguments.get("device_id", "")),
        max(day_us(date_parser.first_day(start, today)), EARLIEST_US) if start else EARLIEST_US,
        min(day_us(date_parser.last_day(end, today)) + DAY_US, LATEST_US) if end else LATEST_US,
    )
