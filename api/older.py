"""The older tracking service's routes: statuses, shapes, headers and sentences as its clients know them.

Field rules and sentences are in telemetry/older.py; storage is that of every other route.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.latest import LatestRoutes
from collector.http import HttpLimits, Intake, ProblemError, off_loop, read_body, store
from telemetry import older
from telemetry.entries import Latest, Slot
from telemetry.fields import Arrival
from telemetry.record import Sent, Stored

HEADERS = {
    "Vary": "Accept, Cookie",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
TO_POST = "POST, OPTIONS"
TO_READ = "GET, HEAD, OPTIONS"
"""What the `Allow` header of every answer says."""

MAX_FORM_FIELDS = 1_000


class OlderError(Exception):
    """Ends a request with a body of the older shape."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class OlderRoute(Route):
    """A route that refuses other methods as the older service does."""

    def __init__(self, path: str, endpoint: Callable[[Request], Any], allow: str) -> None:
        super().__init__(path, endpoint, methods=[allow.partition(",")[0]])
        self._allow = allow

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say which methods there are."""
        method = scope["method"]
        if method in (self.methods or ()):
            await super().handle(scope, receive, send)
        else:
            refusal = _answer(405, {"detail": f'Method "{method}" not allowed.'}, self._allow)
            await refusal(scope, receive, send)


class OlderRoutes:
    """`POST /tracking/data/`, and the latest of a device in both record sets."""

    def __init__(
        self, intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival], latest: LatestRoutes
    ) -> None:
        self._intake = intake
        self._limits = limits
        self._arrival = arrival
        self._latest = latest

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            OlderRoute("/tracking/data/", self.post_data, TO_POST),
            OlderRoute("/tracking/data", self.post_data, TO_POST),
            Route("/tracking/data", redirect),
            OlderRoute("/tracking/data/latest/{device_id}/", self.get_latest, TO_READ),
            OlderRoute("/tracking/data/latest/{device_id}", redirect, TO_READ),
            OlderRoute("/tcp_tracking/data/latest/{device_id}/", self.get_latest_tcp, TO_READ),
            OlderRoute("/tcp_tracking/data/latest/{device_id}", redirect, TO_READ),
        ]

    async def post_data(self, request: Request) -> Response:
        """Store one record or a list; 202 means stored and visible."""
        try:
            body = await read_body(_unencoded(request), self._limits)
            value = await _value_of(request, body)
            now = self._arrival()
            echo, records = await off_loop(len(body), lambda: _check(value, self._limits.max_records, now))
            await store(self._intake, records, len(body))
        except OlderError as error:
            return _answer(error.status, error.body, TO_POST)
        except ProblemError as error:
            return _problem(error, TO_POST)
        return _answer(202, {"message": older.RECEIVED, "data": echo}, TO_POST)

    async def get_latest(self, request: Request) -> Response:
        """The latest of the records that came over HTTP."""
        return await self._get_latest(request, lambda latest: latest.http, http_record)

    async def get_latest_tcp(self, request: Request) -> Response:
        """The latest of all others."""
        return await self._get_latest(request, lambda latest: latest.other, tcp_record)

    async def _get_latest(
        self, request: Request, choose: Callable[[Latest], Slot | None], show: Callable[[Stored], dict[str, Any]]
    ) -> Response:
        device_id = request.path_params["device_id"]
        try:
            latest = await self._latest.latest(device_id)
        except ProblemError as error:
            return _problem(error, TO_READ)
        slot = None if latest is None else choose(latest)
        if slot is None:
            return _answer(404, {"message": "No data found"}, TO_READ)
        return _answer(200, show(slot.stored(device_id)), TO_READ)


def http_record(stored: Stored) -> dict[str, Any]:
    """A record of `/tracking`."""
    values = _values(stored)
    return {
        "id": stored.id,
        "device_id": stored.device_id,
        "timestamp": values["timestamp"],
        "location": values["location"],
        "speed": older.rounded(values["speed"]),
    }


def tcp_record(stored: Stored) -> dict[str, Any]:
    """A record of `/tcp_tracking`."""
    values = _values(stored)
    return {name: values[name] for name in ("device_id", "location", "speed", "timestamp")}


def _values(stored: Stored) -> dict[str, Any]:
    record = stored.record
    location = record.location
    if location is None:
        location = f"{record.latitude},{record.longitude}" if record.has_fix else ""
    return {
        "device_id": stored.device_id,
        "timestamp": older.time_text(older.moment(record.timestamp_us)),
        "location": location,
        "speed": record.speed_kmh or 0.0,
    }


def _check(value: object, max_records: int, now: Arrival) -> tuple[list[dict[str, Any]], list[Sent]]:
    values = value if isinstance(value, list) else [value]
    if len(values) > max_records:
        raise OlderError(413, {"detail": f"A request may hold {max_records} records, not {len(values)}."})
    checked = [older.check(one, "http", now) for one in values]
    if any(one.errors for one in checked):
        raise OlderError(400, [one.errors for one in checked])
    return [one.echo for one in checked], [one.sent for one in checked if one.sent is not None]


def _unencoded(request: Request) -> Request:
    """The same request without its Content-Encoding, which the older service ignores."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-encoding"]
    return Request({**request.scope, "headers": headers}, request.receive)


async def _value_of(request: Request, body: bytes) -> object:
    if not body:
        return {}
    kind = request.headers.get("content-type") or "text/plain"
    name = kind.partition(";")[0].strip().lower()
    if name == "application/json":
        return await off_loop(len(body), lambda: _loads(body))
    if name == "application/x-www-form-urlencoded":
        return _form(body)
    if name == "multipart/form-data":
        return await _form_in_parts(request.headers, body)
    raise OlderError(415, {"detail": f'Unsupported media type "{kind}" in request.'})


def _form(body: bytes) -> dict[str, str]:
    """The fields of a form; of one that comes twice the last."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError as error:
        raise OlderError(400, {"detail": f"Form parse error - {error}"}) from None


async def _form_in_parts(headers: Headers, body: bytes) -> dict[str, str]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(headers, stream(), max_files=0, max_fields=MAX_FORM_FIELDS).parse()
    except MultiPartException as error:
        raise OlderError(400, {"detail": f"Multipart form parse error - {error.message}"}) from None
    return {field: value for field, value in form.items() if isinstance(value, str)}


def _loads(body: bytes) -> object:
    """Decode as the older service did, with its sentences."""
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise OlderError(400, {"detail": "JSON parse error - nested too deeply"}) from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise OlderError(400, {"detail": f"JSON parse error - {error}"}) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"Out of range float values are not JSON compliant: {name!r}")


def _finite(text: str) -> float | str:
    """A number too large for a double stays text, which no rule takes for a number."""
    number = float(text)
    return number if abs(number) != float("inf") else text


async def redirect(request: Request) -> Response:
    """To the same address with a slash, relative, its query kept."""
    path = request.scope["raw_path"].decode("ascii").partition("?")[0] + "/"
    query = request.url.query
    location = f"{path}?{query}" if query else path
    return Response(b"", 301, {**HEADERS, "Location": location, "Content-Type": "text/html; charset=utf-8"})


def _problem(error: ProblemError, allow: str) -> Response:
    return _answer(error.kind.status, {"detail": str(error)}, allow, error.headers)


def _answer(status: int, body: object, allow: str, more: dict[str, str] | None = None) -> Response:
    headers = {**HEADERS, "Allow": allow, **(more or {}), "Content-Type": "application/json"}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))  # its numbers are those of the older service
    return Response(text.encode(), status, headers)
