"""Hands requests to the query program and its answers back as they come.

Questions to the archive run in that program, so that decoding and sorting never keep latest or an intake waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import httpcore
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

MAX_CONNECTIONS = 256
"""Requests under way at once; the query program itself bounds those that wait."""

KEEP_ALIVE_S = 60
"""How long a connection to the query program is kept for the next request."""

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 20.0
"""How much longer than a query's own time the program may take before it is given up."""

OWN_HEADERS = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"date", b"upgrade", b"te"))
"""What each connection says for itself."""

log = logging.getLogger(__name__)


class QueryProgram:
    """The query program's socket. `forward` makes what answers a route from there."""

    def __init__(self, socket: Path, query_timeout_s: float) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            uds=str(socket), max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S, retries=1
        )
        self._timeouts = {
            "connect": CONNECT_TIMEOUT_S,
            "read": query_timeout_s + ANSWER_TIMEOUT_S,
            "write": CONNECT_TIMEOUT_S,
            "pool": CONNECT_TIMEOUT_S,
        }

    def forward(self, refusal: Callable[[str], Response]) -> Forward:
        """An ASGI application; `refusal` makes what a path is answered where the program does not."""
        return Forward(self._pool, self._timeouts, refusal)

    async def close(self) -> None:
        """Close its connections."""
        await self._pool.aclose()


class Forward:
    """Answers each request with what the query program answers."""

    def __init__(
        self, pool: httpcore.AsyncConnectionPool, timeouts: dict[str, float], refusal: Callable[[str], Response]
    ) -> None:
        self._pool = pool
        self._timeouts = timeouts
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. An answer that breaks off there breaks off here, never ending as if whole."""
        is_begun = False
        try:
            async with self._pool.stream(
                scope["method"], _url(scope), headers=_headers(scope), extensions={"timeout": self._timeouts}
            ) as answer:
                headers = [(name, value) for name, value in answer.headers if name.lower() not in OWN_HEADERS]
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                is_begun = True
                async for chunk in answer.aiter_stream():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            log.warning("the query program does not answer: %s", type(error).__name__)
            if is_begun:
                raise
            await self._refusal(scope["path"])(scope, receive, send)


def _url(scope: Scope) -> httpcore.URL:
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    return httpcore.URL(scheme=b"http", host=b"query", port=None, target=target)


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The request's, but for those of its connection and body; with a Host, which links in answers need."""
    left_out = OWN_HEADERS | {b"content-length"}
    headers = [(name, value) for name, value in scope["headers"] if name not in left_out]
    if not any(name == b"host" for name, _ in headers):
        host, port = scope["server"]
        headers.append((b"host", f"{host}:{port}".encode()))
    return headers
