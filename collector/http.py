"""The HTTP collector: `POST /v1/records`, and what the API needs to serve the same route on its own port."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from collector.intake import Intake, Watermarks, memory_percent
from telemetry import clock, problem
from telemetry.config import Settings
from telemetry.errors import BusyError, KeyReusedError, RecordError, SyntaxFault
from telemetry.fields import Arrival, read
from telemetry.hot import Limits
from telemetry.json_text import read as read_json
from telemetry.problem import Problem
from telemetry.record import Sent
from telemetry.redis_client import connect

__all__ = [  # what the API uses, of which it may import this file alone
    "EXCEPTION_HANDLERS",
    "HttpLimits",
    "Intake",
    "ProblemError",
    "healthz",
    "make_arrival",
    "make_intake",
    "memory_percent",
    "off_loop",
    "read_body",
    "routes",
    "store",
]

T = TypeVar("T")

LARGE_BODY_BYTES = 64 * 2**10
"""A body from this size on is decoded in a thread, so that short requests need not wait for it."""

MAX_KEY_CHARACTERS = 255
CONTAINERS_PER_RECORD = 8
"""Objects and arrays that a request may hold for each record that it may hold."""

JSON_TYPES = frozenset(
    ("", "application/json", "text/json", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded")
)
"""What a JSON body may call itself; the last is what `curl -d` says of anything."""


class HttpLimits(NamedTuple):
    """What one request may cost."""

    max_body_bytes: int
    max_records: int
    timeout_s: float

    @classmethod
    def of(cls, settings: Settings) -> HttpLimits:
        c = settings.collector
        return cls(c.max_body_bytes, c.max_request_records, float(c.request_timeout_s))


class ProblemError(Exception):
    """Ends a request with a problem. `more` are further members of its body."""

    def __init__(self, kind: Problem, detail: str, headers: dict[str, str] | None = None, **more: object) -> None:
        super().__init__(detail)
        self.kind = kind
        self.headers = headers
        self.body = problem.body(kind, detail, **more)

    def response(self) -> Response:
        return Response(self.body, self.kind.status, self.headers, problem.CONTENT_TYPE)


def make_intake(settings: Settings) -> Intake:
    """The intake that the settings describe; not started."""
    c = settings.collector
    return Intake(
        lambda: connect(settings),
        settings.redis.shards,
        Limits(c.max_devices, c.max_idempotency_keys, c.idempotency_seconds * 1_000),
        c.max_pending_bytes,
        Watermarks(settings.redis.full_percent, settings.redis.resume_percent),
    )


def make_arrival(settings: Settings, intake: Intake) -> Callable[[], Arrival]:
    """What gives each message its moment of arrival."""
    c = settings.collector
    return lambda: clock.arrival(
        clock.now_us(), intake.newest_ms, c.max_future_seconds, c.speed_unit, c.max_message_bytes
    )


def routes(intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival]) -> list[Route]:
    """The routes of an intake."""

    async def post_records(request: Request) -> Response:
        _require_json(request)
        name = _idempotency_key(request)
        body = await read_body(request, limits)
        now = arrival()
        records = await off_loop(len(body), lambda: _records(body, limits.max_records, now))
        await store(intake, records, len(body), name, _hash(body) if name else b"")
        return Response(b'{"accepted":%d}' % len(records), 202, media_type="application/json")

    return [Route("/v1/records", post_records, methods=["POST"])]


async def healthz(_request: Request) -> Response:
    """Alive: this process answers."""
    return Response(b'{"status":"alive"}', media_type="application/json")


def app(intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival]) -> Starlette:
    """The collector's application."""
    return Starlette(
        routes=[*routes(intake, limits, arrival), Route("/healthz", healthz)], exception_handlers=EXCEPTION_HANDLERS
    )


# Parts that other routes use -------------------------------------------------------------------------


async def store(
    intake: Intake, records: Sequence[Sent], size_bytes: int, name: str = "", body_hash: bytes = b""
) -> None:
    """Submit a request's records; what speaks against it becomes a problem."""
    try:
        await intake.submit(records, size_bytes, name, body_hash)
    except BusyError as error:
        raise ProblemError(problem.BUSY, str(error), {"Retry-After": str(error.retry_after_s)}) from None
    except KeyReusedError as error:
        raise ProblemError(problem.KEY_REUSED, str(error)) from None


async def read_body(request: Request, limits: HttpLimits) -> bytes:
    """The whole body, within its size and time."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(problem.UNSUPPORTED_TYPE, "send the body without Content-Encoding")
    too_large = ProblemError(
        problem.BODY_TOO_LARGE, f"a body may have {limits.max_body_bytes} bytes", {"Connection": "close"}
    )
    if int(request.headers.get("content-length") or 0) > limits.max_body_bytes:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        detail = f"a request may take {limits.timeout_s:g} s to arrive"
        raise ProblemError(problem.TIMED_OUT, detail, {"Connection": "close"}) from None
    return b"".join(chunks)


async def off_loop(size_bytes: int, work: Callable[[], T]) -> T:
    """Do `work` in a thread if it is large."""
    return await asyncio.to_thread(work) if size_bytes >= LARGE_BODY_BYTES else work()


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in JSON_TYPES and not kind.endswith("+json"):
        raise ProblemError(problem.UNSUPPORTED_TYPE, f"send application/json, not {kind}")


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        detail = f"Idempotency-Key must have 1 to {MAX_KEY_CHARACTERS} characters"
        raise ProblemError(problem.INVALID_PARAMETER, detail, parameter="Idempotency-Key")
    return key


def _hash(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _records(body: bytes, max_records: int, arrival: Arrival) -> list[Sent]:
    try:
        value = read_json(body, CONTAINERS_PER_RECORD * max_records)
    except SyntaxFault as fault:
        raise ProblemError(problem.INVALID_JSON, str(fault)) from None
    values = value if isinstance(value, list) else [value]
    if len(values) > max_records:
        raise ProblemError(problem.BODY_TOO_LARGE, f"a request may hold {max_records} records, not {len(values)}")
    return [_record(index, one, arrival) for index, one in enumerate(values)]


def _record(index: int, value: object, arrival: Arrival) -> Sent:
    try:
        return read(value, "http", "json", arrival)
    except RecordError as error:
        raise ProblemError(
            problem.INVALID_RECORD,
            f"record {index}: {error}",
            index=index,
            field=error.field,
            value=problem.shown(error.value),
            reason=error.reason,
        ) from None


async def _on_problem(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    return error.response()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kinds = {404: problem.NOT_FOUND, 405: problem.WRONG_METHOD}
    kind = kinds.get(error.status_code) or Problem("http", error.status_code, error.detail)
    detail = f"{request.method} {request.url.path}"
    headers = {"Allow": _allowed(request)} if kind is problem.WRONG_METHOD else error.headers
    return Response(problem.body(kind, detail), kind.status, headers, problem.CONTENT_TYPE)


def _allowed(request: Request) -> str:
    """The methods of all routes at this address; Starlette names only those of the first."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    at_this = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in at_this for method in route.methods or ()}))


async def _on_error(_request: Request, _error: Exception) -> Response:
    return Response(problem.body(problem.INTERNAL, "the request was not carried out"), 500, None, problem.CONTENT_TYPE)


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


EXCEPTION_HANDLERS = {
    ProblemError: _on_problem,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_disconnect,
    Exception: _on_error,
}
"""What Starlette answers for each kind of exception."""
