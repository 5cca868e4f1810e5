"""The API's routes. A new one is a file and a line here."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Route

from api.health import Health
from api.history import History
from api.latest import LatestRoutes
from api.older import OlderRoutes
from collector.http import EXCEPTION_HANDLERS, healthz


class DeviceConvertor(PathConvertor):
    """A device's id in a path: any text, also one with a `/` or a line break in it."""

    regex = "(?s:.+)"


def app(intake: list[Route], latest: LatestRoutes, history: History, health: Health, older: OlderRoutes) -> Starlette:
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
            *older.routes(),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
