"""The quick way of `GET /v1/devices/{id}/latest`, the question that is asked most: two thirds of the plain one's time.

It answers without Starlette (and fast_latest_connection.py before it without all of this). A query, another method and
a device that is not known go on to the application.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from api.execution.request_metrics import ROUTE
from api.latest.latest_texts import LARGE_BYTES
from api.latest.representation import answer_of
from api.latest.routes import LatestRoutes, sole
from api.requests import key_devices
from api.requests.device_path import END, START, is_of_latest
from api.responses.record_schema import encode
from api.responses.shared_text import TextsResponse
from telemetry.coordination import rejection_counts
from telemetry.http.problem_responses import ProblemError

ROUTE_OF_LATEST = f"{START}{{device_id}}{END}"


class QuickLatest:
    """An application in front of another, which it asks wherever it is not enough itself."""

    def __init__(self, behind: ASGIApp, latest: LatestRoutes) -> None:
        self._behind = behind
        self._latest = latest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        device_id = _device(scope) if scope["type"] == "http" else ""
        if not device_id:
            await self._behind(scope, receive, send)
            return
        scope[ROUTE] = ROUTE_OF_LATEST
        try:
            key_devices.allow(scope, (device_id,))
            value = await self._latest.value(device_id)
            if value is not None and len(value) > LARGE_BYTES:
                response = TextsResponse(self._latest.texts(device_id, value))
                del value  # it would stay in memory until the client has read the response
                await response(scope, receive, send)
                return
            body = None if value is None else sole(device_id, lambda: encode(answer_of(device_id, value)))
        except ProblemError as error:
            rejection_counts.count(error.kind)
            await error.response()(scope, receive, send)
            return
        if body is None:
            await self._behind(scope, receive, send)
            return
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _device(scope: Scope) -> str:
    """The device whose latest is asked for; empty if something else is."""
    path: str = scope["path"]
    if scope["method"] != "GET" or scope["query_string"] or not path.startswith(START):
        return ""
    if not is_of_latest(scope):
        return ""
    return path[len(START) : -len(END)]
