"""The older tracking service's routes: statuses, shapes, headers and sentences as its clients know them.

Field rules and sentences are in telemetry/older.py; storage is that of every other route.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
MAX_FORM_FIELDS = 1_000


class OlderError(Exception):
    """Ends a request with a body of the older shape."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


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
            Route("/tracking/data/", self.post_data, methods=["POST"]),
            Route("/tracking/data", self.post_data, methods=["POST"]),
            Route("/tracking/data/latest/{device_id}/", self.get_latest),
            Route("/tracking/data/latest/{device_id}", redirect),
            Route("/tcp_tracking/data/latest/{device_id}/", self.get_latest_tcp),
            Route("/tcp_tracking/data/latest/{device_id}", redirect),
        ]

    async def post_data(self, request: Request) -> Response:
        """Store one record or a list; 202 means stored and visible."""
        try:
            body = await read_body(request, self._limits)
            value = await self._value(request, body)
            now = self._arrival()
            echo, records = await off_loop(len(body), lambda: _check(value, now))
            await store(self._intake, records, len(body))
        except OlderError as error:
            return _answer(error.status, error.body, "POST, OPTIONS")
        except ProblemError as error:
            return _answer(error.kind.status, {"detail": str(error)}, "POST, OPTIONS", error.headers)
        return _answer(202, {"message": older.RECEIVED, "data": echo}, "POST, OPTIONS")

    async def _value(self, request: Request, body: bytes) -> object:
        kind = request.headers.get("content-type", "")
        name = kind.partition(";")[0].strip().lower()
        if name in FORM_TYPES:
            async with request.form(max_fields=MAX_FORM_FIELDS, max_files=0) as form:
                return {field: value for field, value in form.items() if isinstance(value, str)}
        if not body:
            return {}
        if name != "application/json":
            raise OlderError(415, {"detail": f'Unsupported media type "{kind or "text/plain"}" in request.'})
        return await off_loop(len(body), lambda: _loads(body))

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
        latest = await self._latest.latest(device_id)
        slot = None if latest is None else choose(latest)
        if slot is None:
            return _answer(404, {"message": "No data found"}, "GET, HEAD, OPTIONS")
        return _answer(200, show(slot.stored(device_id)), "GET, HEAD, OPTIONS")


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


def _check(value: object, now: Arrival) -> tuple[list[dict[str, Any]], list[Sent]]:
    values = value if isinstance(value, list) else [value]
    checked = [older.check(one, "http", now) for one in values]
    if any(one.errors for one in checked):
        raise OlderError(400, [one.errors for one in checked])
    return [one.echo for one in checked], [one.sent for one in checked if one.sent is not None]


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
    return Response(b"", 301, {"Location": location, "Content-Type": "text/html; charset=utf-8"})


def _answer(status: int, body: object, allow: str, more: dict[str, str] | None = None) -> Response:
    headers = {**HEADERS, "Allow": allow, **(more or {}), "Content-Type": "application/json"}
    return Response(msgspec.json.encode(body), status, headers)
