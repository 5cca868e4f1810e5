"""CORS: allows pages of the origins in `api.cors_origins` to call the API from a browser.

Pages send a key in `Authorization`, set by their own script. Credentials that the browser adds itself, cookies and
stored passwords, are never allowed, so a page cannot use the rights of its reader; for this reason `*` is safe, too.
This middleware runs before authentication, because preflight requests carry no key.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANY = "*"

METHODS = b"GET, HEAD, POST, OPTIONS"
HEADERS = (
    b"Accept, Authorization, Batch-Number, Content-Encoding, Content-Type, Idempotency-Key, Last-Event-ID, Sender-Id"
)
"""Request headers that a page may send, in addition to those that are always allowed."""

EXPOSED = (
    b"Content-Disposition, Implausible, Link, Next-Cursor, RateLimit, RateLimit-Policy, Retry-After, Truncated, "
    b"WWW-Authenticate"
)
"""Response headers that a page may read, in addition to those that are always allowed."""

MAX_AGE_S = b"600"
"""Time for which a browser caches a preflight response, s."""


def vary(origins: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """The header `Vary` of all responses, so that caches keep responses for different origins apart."""
    return [(b"vary", b"Origin")] if origins and ANY not in origins else []


class Cors:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._any = ANY in origins
        self._vary = vary(origins)
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer preflight requests; add CORS headers to other responses."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = _header(scope, b"origin")
        allowed = self._allowed(origin)
        if allowed and scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method"):
            more = [
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", HEADERS),
                (b"access-control-max-age", MAX_AGE_S),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": [*allowed, *more, *self._vary]})
            await send({"type": "http.response.body", "body": b""})
            return
        if allowed:
            allowed.append((b"access-control-expose-headers", EXPOSED))

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *allowed, *self._vary]
            await send(message)

        await self._app(scope, receive, send_allowed)

    def _allowed(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        if not origin or not (self._any or origin in self._origins):
            return []
        return [(b"access-control-allow-origin", ANY.encode() if self._any else origin)]


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
