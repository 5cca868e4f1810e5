"""Counts and durations of responses by route."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import lru_cache

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.observability import metrics

OTHER = "other"
"""Route label of unknown paths, and of requests that are forwarded to another program, which measures them."""

STATUSES = ("2xx", "3xx", "4xx", "5xx")


def count_from_zero(routes: Iterable[BaseRoute]) -> None:
    """Create the counters of all routes, and of other paths, with value 0."""
    paths = [plain(route.path) for route in routes if isinstance(route, Route)]
    for path in (*paths, OTHER):
        for status in STATUSES:
            metrics.ANSWERS.of(path, status)


class RequestMetrics:
    """ASGI middleware that counts responses and measures the time from a request to the end of its response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application and record the status and duration of the response."""
        status = 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start_s = time.monotonic()
        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            route = route_of(scope)
            metrics.REQUEST_S.of(route).observe(time.monotonic() - start_s)
            metrics.ANSWERS.of(route, f"{status // 100}xx").add()


def route_of(scope: Scope) -> str:
    """The path of the matched route, with the names of its parameters instead of values, so that labels are few."""
    route = scope.get("route")
    return plain(route.path) if route is not None else OTHER


@lru_cache(256)
def plain(path: str) -> str:
    """A route's path without convertors: `/v1/devices/{device_id}` for `/v1/devices/{device_id:path}`."""
    return re.sub(r":\w+}", "}", path)
