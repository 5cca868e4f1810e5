"""The routes of the API program. What is not among them the query program answers (query.py)."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Mount, Route

from api.forward import Forward
from api.html import STATIC
from api.latest import LatestRoutes
from api.leaving import EndsWithClient
from api.metrics import Metrics
from api.missing import HANDLERS
from api.older import documents
from api.older.routes import OlderRoutes
from collector.http import healthz


class DeviceConvertor(PathConvertor):
    """A device's id in a path: any text, also one with a `/` or a line break in it."""

    regex = "(?s:.+)"


def app(intake: list[Route], latest: LatestRoutes, older: OlderRoutes, metrics: Metrics, forward: Forward) -> Starlette:
    """The API's application. `intake` are the collector's routes, so that one port serves a whole round trip."""
    register_url_convertor("device", DeviceConvertor())
    forwarded = EndsWithClient(forward)
    application = Starlette(
        routes=[
            Route("/v1/devices/{device_id:device}/latest", latest.get_device),
            Route("/v1/latest", latest.get_all),
            *intake,
            Route("/healthz", healthz),
            Route("/metrics", metrics.get_metrics),
            *older.routes(),
            *documents.routes(),
            Mount("/static", STATIC),
            Route("/v1/records", forwarded, methods=["GET"]),  # beside the intake's POST
        ],
        exception_handlers=HANDLERS,
    )
    application.router.default = forwarded
    return application
