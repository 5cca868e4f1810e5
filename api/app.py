"""The application of the API program. The query program answers all paths without a route here (query/app.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.devices.delete_device import DELETE_DEVICE
from api.errors import HANDLERS
from api.execution.client_disconnect import CancelOnDisconnect
from api.latest.routes import LatestRoutes, is_plain
from api.legacy import swagger
from api.pages import doc_viewers
from api.query_proxy.forward import Forward
from api.requests import device_path
from api.requests.device_path import DeviceRoute
from api.responses.html import STATIC
from collector.http.openapi import HEALTHZ
from collector.http.routes import healthz

RouteGroup = Callable[[], Sequence[BaseRoute]]
"""Returns the routes of one subject, once the path type `device` is registered."""


def app(groups: Sequence[RouteGroup], forwarded: ForwardedRoutes) -> Starlette:
    """The application with the routes of all groups, and those that need no part of the program."""
    device_path.register()
    application = Starlette(
        routes=[route for routes in (*groups, _static_routes) for route in routes()], exception_handlers=HANDLERS
    )
    application.router.default = forwarded.endpoint
    return application


def _static_routes() -> list[BaseRoute]:
    return [HEALTHZ.route(healthz), *swagger.routes(), *doc_viewers.routes(), Mount("/static", STATIC)]


class ForwardedRoutes:
    """Requests for the query program: those on paths that also have a route of this program, and SQL, which has a body.

    `endpoint` forwards any request without a body.
    """

    def __init__(self, forward: Forward, sql: Forward, latest: LatestRoutes) -> None:
        self.endpoint = CancelOnDisconnect(forward)
        self._sql = CancelOnDisconnect(sql)
        self._latest = latest

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            DeviceRoute(DELETE_DEVICE.path, self.endpoint, methods=["GET"]),
            Route("/v1/latest", _Latest(self._latest, self.endpoint), methods=["GET"]),
            Route("/v1/sql", self._sql, methods=["POST"]),
            Route("/v1/records", self.endpoint, methods=["GET"]),  # next to the intake's POST
        ]


class _Latest:
    """`GET /v1/latest`: plain JSON needs Redis only; all other requests are forwarded to the query program."""

    def __init__(self, latest: LatestRoutes, forwarded: ASGIApp) -> None:
        self._plain = CancelOnDisconnect(request_response(latest.get_all))
        self._forwarded = forwarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        endpoint = self._plain if is_plain(Request(scope)) else self._forwarded
        await endpoint(scope, receive, send)
