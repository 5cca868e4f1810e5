"""A name for each request over HTTP: the sender's `X-Request-Id`, or one of ours. It is in the answer and in the log.

The API program hands it on to the query program, so that lines of both can be found by it.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.logs import REQUEST_ID

log = logging.getLogger("access")

HEADER = b"x-request-id"
SANE = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
"""A sender's name that is used as it is; for any other a new one is made."""


class Named:
    """ASGI middleware that names requests; with `logs_access` each is a line of the log, as far as lines alike go."""

    def __init__(self, app: ASGIApp, logs_access: bool = False) -> None:
        self._app = app
        self._logs_access = logs_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the request's name."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _name(scope)
        REQUEST_ID.set(name.decode())
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [(key, value) for key, value in message.get("headers", ()) if key.lower() != HEADER]
                message = {**message, "headers": [*others, (HEADER, name)]}
            await send(message)

        begun_s = time.monotonic()
        try:
            await self._app(scope, receive, send_named)
        finally:
            if self._logs_access:
                took_ms = 1_000 * (time.monotonic() - begun_s)
                log.info("%s %s %d in %.1f ms", scope["method"], scope["path"], status, took_ms)


def _name(scope: Scope) -> bytes:
    """The request's name; one of ours is put into its headers, for whom it is forwarded to."""
    found = next((value for key, value in scope["headers"] if key == HEADER), b"")
    if SANE.fullmatch(found):
        return bytes(found)
    made = secrets.token_hex(8).encode()
    scope["headers"] = [*((key, value) for key, value in scope["headers"] if key != HEADER), (HEADER, made)]
    return made
