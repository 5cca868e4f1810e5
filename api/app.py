"""The routes of the API program. What is not among them the query program answers (query/app.py)."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.audit.routes import AUDIT, AuditRoutes
from api.devices.delete_device import DELETE_DEVICE, Deleting
from api.errors import HANDLERS
from api.execution.client_disconnect import EndsWithClient
from api.latest.live_stream import LIVE, LiveRoutes
from api.latest.routes import LATEST_OF_DEVICE, LatestRoutes, is_plain
from api.legacy import swagger
from api.legacy.routes import OlderRoutes
from api.pages import doc_viewers
from api.pages.map_page import PageRoutes
from api.query_proxy.forward import Forward
from api.requests import device_path
from api.requests.device_path import DeviceRoute, LatestRoute
from api.responses.html import STATIC
from api.sign_in.routes import LoginRoutes
from api.status.box_history import BOX, BoxRoutes
from api.status.probe_operations import METRICS
from api.status.prometheus import Metrics
from collector.http.openapi import HEALTHZ
from collector.http.routes import healthz


def app(
    intake: list[Route],
    latest: LatestRoutes,
    live: LiveRoutes,
    older: OlderRoutes,
    metrics: Metrics,
    box: BoxRoutes,
    forward: Forward,
    sql: Forward,
    deleting: Deleting,
    page: PageRoutes,
    login: LoginRoutes,
    audit: AuditRoutes,
) -> Starlette:
    """The API's application. `intake` are the collector's routes, so that one port serves a whole round trip."""
    device_path.register()
    forwarded = EndsWithClient(forward)
    application = Starlette(
        routes=[
            LatestRoute(LATEST_OF_DEVICE.path, latest.get_device, methods=["GET"]),
            DeviceRoute(DELETE_DEVICE.path, deleting.delete_device, methods=["DELETE"]),
            DeviceRoute(DELETE_DEVICE.path, forwarded, methods=["GET"]),
            Route("/v1/latest", _Latest(latest, forwarded), methods=["GET"]),
            LIVE.route(EndsWithClient(request_response(live.get_live))),
            Route("/v1/sql", EndsWithClient(sql), methods=["POST"]),
            *intake,
            HEALTHZ.route(healthz),
            METRICS.route(metrics.get_metrics),
            BOX.route(box.get_box),
            AUDIT.route(audit.get_audit),
            *older.routes(),
            *swagger.routes(),
            *doc_viewers.routes(),
            *page.routes(),
            *login.routes(),
            Mount("/static", STATIC),
            Route("/v1/records", forwarded, methods=["GET"]),  # beside the intake's POST
        ],
        exception_handlers=HANDLERS,
    )
    application.router.default = forwarded
    return application


class _Latest:
    """`GET /v1/latest`: plain JSON comes from Redis at once, all else from the query program."""

    def __init__(self, latest: LatestRoutes, forwarded: ASGIApp) -> None:
        self._plain = EndsWithClient(request_response(latest.get_all))
        self._forwarded = forwarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        answer = self._plain if is_plain(Request(scope)) else self._forwarded
        await answer(scope, receive, send)
