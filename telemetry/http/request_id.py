"""Id of each HTTP request: the sender's `X-Request-Id`, or a new one. It is in the response and in the log.

The API program forwards it to the query program, so that log lines of both can be found by it.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable
from itertools import count

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.observability.log_setup import REQUEST_ID

log = logging.getLogger("access")

Headers = list[tuple[bytes, bytes]]

HEADER = b"x-request-id"
SANE = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
"""Format of a sender's id that is used; otherwise a new id is made."""


class RequestIds:
    """ASGI middleware that sets request ids; with `logs_access` it logs each request (repeated lines are limited)."""

    def __init__(self, app: ASGIApp, logs_access: bool = False) -> None:
        self._app = app
        self._logs_access = logs_access
        self._begin = secrets.token_hex(4).encode()
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the request's id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = self.name_of(scope["headers"])
        REQUEST_ID.set(name.decode())
        if self._logs_access:
            await self._answer_and_log(scope, receive, send, name)
        else:
            await self._app(scope, receive, _named(send, name))

    async def _answer_and_log(self, scope: Scope, receive: Receive, send: Send, name: bytes) -> None:
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begun_s = time.monotonic()
        try:
            await self._app(scope, receive, _named(send_noted, name))
        finally:
            _log(scope["method"], scope["path"], status, begun_s)

    def log_direct(self, name: bytes, method: str, path: str, status: int, begun_s: float) -> None:
        """Log a request that a connection answered itself, if requests are logged; `begun_s` is a monotonic time."""
        if self._logs_access:
            before = REQUEST_ID.set(name.decode())
            _log(method, path, status, begun_s)
            REQUEST_ID.reset(before)

    def name_of(self, headers: Headers) -> bytes:
        """The request's id; a new one is also put into its headers, for the program that it is forwarded to."""
        for _at, (key, value) in enumerate(headers):
            if key == HEADER:
                if SANE.fullmatch(value):
                    return value
                headers[:] = [header for header in headers if header[0] != HEADER]
                break
        made = b"%b%08x" % (self._begin, next(self._numbers))
        headers.append((HEADER, made))
        return made


def _log(method: str, path: str, status: int, begun_s: float) -> None:
    log.info("%s %s %d in %.1f ms", method, path, status, 1_000 * (time.monotonic() - begun_s))


def _named(send: Send, name: bytes) -> Send:
    """Wraps `send` so that the response carries the request's id."""
    header = HEADER, name

    def send_named(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            message["headers"] = [*[one for one in headers if one[0].lower() != HEADER], header]
        return send(message)

    return send_named
