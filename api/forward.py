"""Hands requests to the query program and its answers back as they come.

Questions to the archive run in that program, so that decoding and sorting never keep latest or an intake waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_from_bytes

import aiohttp
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from yarl import URL

from api.between import KEEP_ALIVE_S, MAX_CONNECTIONS, SCHEME
from collector.http import ProblemError
from telemetry import problem

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 20.0
"""How much longer than a query's own time the program may take before it is given up."""

OWN_HEADERS = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"date", b"upgrade", b"te"))
"""What each connection says for itself."""

NOT_ASKED = OWN_HEADERS | {b"content-length", b"expect", SCHEME}
"""What is left out of a request. Its body goes only where it may, and then says its length anew."""

AS_SENT = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")
"""What a request's address may have as it is; a byte beyond is written as %XX."""

MAX_HEADER_BYTES = 2**17
"""One line of an answer's head, which may have the request's address in it."""

MAX_SQL_BYTES = 256 * 2**10
"""Body of a question in SQL; a thousand devices by name have room in it."""

log = logging.getLogger(__name__)


class QueryProgram:
    """The query program's socket, asked from a running event loop. `forward` makes what answers a route from there."""

    def __init__(self, socket: Path, query_timeout_s: float, speaks_tls: bool = False) -> None:
        self._scheme = "https" if speaks_tls else "http"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket), limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=CONNECT_TIMEOUT_S, sock_read=query_timeout_s + ANSWER_TIMEOUT_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    def forward(self, refusal: Callable[[str], Response], max_body_bytes: int = 0) -> Forward:
        """An ASGI application; `refusal` makes what a path is answered where the program does not.

        Bodies of requests are handed on if they may have any bytes.
        """
        return Forward(self._session, refusal, self._scheme, max_body_bytes)

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()


class Forward:
    """Answers each request with what the query program answers."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        refusal: Callable[[str], Response],
        scheme: str = "http",
        max_body_bytes: int = 0,
    ) -> None:
        self._session = session
        self._max_body_bytes = max_body_bytes
        self._scheme = scheme
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. An answer that breaks off there breaks off here, never ending as if whole."""
        is_begun = False
        data = await _body(Request(scope, receive), self._max_body_bytes) if self._max_body_bytes else None
        try:
            async with self._session.request(
                scope["method"], _url(scope), headers=_headers(scope, self._scheme), data=data, allow_redirects=False
            ) as answer:
                headers = [(name, value) for name, value in answer.raw_headers if name.lower() not in OWN_HEADERS]
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                is_begun = True
                async for chunk in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the query program does not answer: %s", type(error).__name__)
            if is_begun:
                return  # without an end: the server closes the connection, by which the client sees what is missing
            await self._refusal(scope["path"])(scope, receive, send)


async def _body(request: Request, most_bytes: int) -> bytes:
    """A request's whole body. Raises `ProblemError` for one that is larger than it may be."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > most_bytes:
            detail = f"a body may have {most_bytes} bytes here"
            raise ProblemError(problem.BODY_TOO_LARGE, detail, {"Connection": "close"})
    return data


def _url(scope: Scope) -> URL:
    """The request's address as it came, on a host that is only a name: the program is found by its socket."""
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    return URL("http://query/" + quote_from_bytes(target.removeprefix(b"/"), AS_SENT), encoded=True)


def _headers(scope: Scope, scheme: str) -> list[tuple[str, str]]:
    """The request's, but for those of its connection and body; with a Host and a scheme, which links need."""
    headers = [
        (name.decode(), value.decode(errors="replace")) for name, value in scope["headers"] if name not in NOT_ASKED
    ]
    if not any(name == "host" for name, _ in headers):
        host, port = scope["server"]
        headers.append(("host", f"{host}:{port}"))
    headers.append((SCHEME.decode(), scheme))
    return headers
