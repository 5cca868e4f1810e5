"""The API's routes. A new one is a file and a line here."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from api.answers import wants_json
from api.health import Health
from api.history import History
from api.html import STATIC, page
from api.latest import LatestRoutes
from api.older import documents
from api.older.routes import OlderRoutes
from api.status import Status
from collector.http import EXCEPTION_HANDLERS, healthz


class DeviceConvertor(PathConvertor):
    """A device's id in a path: any text, also one with a `/` or a line break in it."""

    regex = "(?s:.+)"


def app(
    intake: list[Route],
    latest: LatestRoutes,
    history: History,
    health: Health,
    status: Status,
    older: OlderRoutes,
) -> Starlette:
    """The API's application. `intake` are the collector's routes, so that one port serves a whole round trip."""
    register_url_convertor("device", DeviceConvertor())
    return Starlette(
        routes=[
            Route("/v1/devices/{device_id:device}/latest", latest.get_device),
            Route("/v1/latest", latest.get_all),
            *intake,
            Route("/v1/records", history.get_records),
            Route("/healthz", healthz),
            Route("/readyz", health.get_readyz),
            *status.routes(),
            *older.routes(),
            *documents.routes(),
            Mount("/static", STATIC),
        ],
        exception_handlers={**EXCEPTION_HANDLERS, 404: not_found},
    )


async def not_found(request: Request, error: Exception) -> Response:
    """404: a problem to programs, under `/v1/` or where they accept JSON; a page to all others."""
    path = request.url.path
    if path == "/v1" or path.startswith("/v1/") or wants_json(request):
        return await EXCEPTION_HANDLERS[HTTPException](request, error)
    return page("not_found.html", 404, path=path)
