"""Whose pages may ask the API from a browser (CORS): those of the origins that the settings name.

A page asks with a key in `Authorization`, which its own script sets. What the browser would add by itself, cookies and
passwords that it keeps, is never allowed, so no page can use what its reader has on this box; and so `*` does no harm
either. It stands in front of whatever asks for keys: a browser asks beforehand without one.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANY = "*"

METHODS = b"GET, HEAD, POST, OPTIONS"
HEADERS = (
    b"Accept, Authorization, Batch-Number, Content-Encoding, Content-Type, Idempotency-Key, Last-Event-ID, Sender-Id"
)
"""What a page may send beyond what every page may."""

EXPOSED = (
    b"Content-Disposition, Link, Next-Cursor, RateLimit, RateLimit-Policy, Retry-After, Truncated, WWW-Authenticate"
)
"""What a page may read beyond what every page may."""

MAX_AGE_S = b"600"
"""How long a browser need not ask beforehand again."""


class Cors:
    """An application in front of another."""

    def __init__(self, behind: ASGIApp, origins: Sequence[str]) -> None:
        self._behind = behind
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a browser that asks beforehand; of all others let the answer say whose pages may read it."""
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
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

        await self._behind(scope, receive, send_allowed)

    @property
    def _vary(self) -> list[tuple[bytes, bytes]]:
        """What keeps a cache from giving one origin's answer to another."""
        return [] if self._any else [(b"vary", b"Origin")]

    def _allowed(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        if not origin or not (self._any or origin in self._origins):
            return []
        return [(b"access-control-allow-origin", ANY.encode() if self._any else origin)]


def _header(scope: Scope, name: bytes) -> bytes:
    for found, value in scope["headers"]:
        if found == name:
            return bytes(value)
    return b""
