"""How long answers take, by route."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import lru_cache

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.observability import metrics

OTHER = "other"
"""What is not here, and what another program answers, which measures it."""


STATUSES = ("2xx", "3xx", "4xx", "5xx")


def count_from_zero(routes: Iterable[BaseRoute]) -> None:
    """Have the answers of routes, and of what is none of them, counted from 0 on."""
    paths = [plain(route.path) for route in routes if isinstance(route, Route)]
    for path in (*paths, OTHER):
        for status in STATUSES:
            metrics.ANSWERS.of(path, status)


class Timed:
    """ASGI middleware that measures from a request to the end of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count."""
        status = 500

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begun_s = time.monotonic()
        try:
            await self._app(scope, receive, send_and_see)
        finally:
            route = route_of(scope)
            metrics.REQUEST_S.of(route).observe(time.monotonic() - begun_s)
            metrics.ANSWERS.of(route, f"{status // 100}xx").add()


def route_of(scope: Scope) -> str:
    """The path of the route that answered, its parameters by name alone: there are few."""
    route = scope.get("route")
    return plain(route.path) if route is not None else OTHER


@lru_cache(256)
def plain(path: str) -> str:
    """`/v1/devices/{device_id}` of a path whose parameters name their convertors."""
    return re.sub(r":\w+}", "}", path)
