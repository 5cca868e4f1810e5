"""Hands requests to the query program and its answers back as they come.

Questions to the archive run in that program, so that decoding and sorting never keep latest or an intake waiting.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.execution.client_pace import MinimumPace, PacedClient
from api.query_proxy.connection_pool import Connections, Unanswered
from api.requests.asker import asker_of
from api.requests.query_headers import ADDRESS, SCHEME
from telemetry.http.problem_responses import ProblemError
from telemetry.limits.client_address import Addresses
from telemetry.model import problems

ANSWER_TIMEOUT_S = 20.0
"""How much longer than a query's own time the program may take before it is given up."""

OWN_HEADERS = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"date", b"upgrade", b"te"))
"""What each connection says for itself."""

NOT_ASKED = OWN_HEADERS | {b"content-length", b"expect", SCHEME, ADDRESS}
"""What is left out of a request. Its body goes only where it may, and then says its length anew."""

SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
"""Methods of requests that may be asked again."""

AS_SENT = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")
"""What a request's address may have as it is; a byte beyond is written as %XX."""

MAX_SQL_BYTES = 256 * 2**10
"""Body of a question in SQL; a thousand devices by name have room in it."""

START_S = 10.0
"""The query program may take so long to answer for the first time: until then that is no warning."""

log = logging.getLogger(__name__)


NO_PROXIES = Addresses((), "")
ANY_PACE = MinimumPace()


class QueryProxy:
    """The query program's socket, asked from a running event loop. `forward` makes what answers a route from there.

    `share_percent` is how many of the connections one key or address may use; a client below the minimum pace is cut
    off while others wait for one.
    """

    def __init__(
        self,
        socket: Path,
        query_timeout_s: float,
        speaks_tls: bool = False,
        addresses: Addresses = NO_PROXIES,
        minimum: MinimumPace = ANY_PACE,
        share_percent: int = 100,
    ) -> None:
        self._scheme = b"https" if speaks_tls else b"http"
        self._connections = Connections(socket, query_timeout_s + ANSWER_TIMEOUT_S, share_percent)
        self._clients = Clients(addresses, minimum)
        self._start = Start()

    def forward(self, refusal: Callable[[str], Response], max_body_bytes: int = 0) -> Forward:
        """An ASGI application; `refusal` makes what a path is answered where the program does not.

        Bodies of requests are handed on if they may have any bytes.
        """
        return Forward(self._connections, refusal, self._start, self._scheme, max_body_bytes, self._clients)

    def close(self) -> None:
        """Close its connections."""
        self._connections.close()


class Clients(NamedTuple):
    """How clients are told apart, and how fast they have to read."""

    addresses: Addresses = NO_PROXIES
    minimum: MinimumPace = ANY_PACE


UNLIMITED = Clients()


class Start:
    """The query program's start, during which it does not answer yet."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._over_s = monotonic() + START_S

    def end(self) -> None:
        """Note that the program has answered."""
        self._over_s = 0.0

    @property
    def unanswered_level(self) -> int:
        """Severity of the log's line about a request that the program does not answer."""
        return logging.DEBUG if self._monotonic() < self._over_s else logging.WARNING


class Forward:
    """Answers each request with what the query program answers."""

    def __init__(
        self,
        connections: Connections,
        refusal: Callable[[str], Response],
        start: Start,
        scheme: bytes = b"http",
        max_body_bytes: int = 0,
        clients: Clients = UNLIMITED,
    ) -> None:
        self._clients = clients
        self._connections = connections
        self._max_body_bytes = max_body_bytes
        self._scheme = scheme
        self._refusal = refusal
        self._start = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. An answer that breaks off there breaks off here, never ending as if whole."""
        is_begun = False
        data = await _body(Request(scope, receive), self._max_body_bytes) if self._max_body_bytes else None
        method: str = scope["method"]
        asker, client = asker_of(scope, self._clients.addresses), PacedClient(self._clients.minimum)
        request, silent_s = _request(scope, self._scheme, asker.address, data), self._connections.silent_s
        asked = self._connections.asked(request, method == "HEAD", method in SAFE, asker, client)
        try:
            with client:
                async with asked as answer:
                    self._start.end()
                    headers = [(name, value) for name, value in answer.headers if name.lower() not in OWN_HEADERS]
                    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                    is_begun = True
                    is_read = False
                    while not is_read:
                        chunk, is_read = await answer.read(silent_s), answer.is_read
                        await client.send(send, chunk, not is_read)
        except Unanswered as error:
            log.log(self._start.unanswered_level, "the query program does not answer: %s", error)
            if is_begun:
                return  # without an end: the server closes the connection, by which the client sees what is missing
            await self._refusal(scope["path"])(scope, receive, send)
        if client.was_ended:
            log.warning("an answer broke off: its client read too slowly while others waited")


async def _body(request: Request, most_bytes: int) -> bytes:
    """A request's whole body. Raises `ProblemError` for one that is larger than it may be."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > most_bytes:
            detail = f"a body may have {most_bytes} bytes here"
            raise ProblemError(problems.BODY_TOO_LARGE, detail, {"Connection": "close"})
    return data


def _request(scope: Scope, scheme: bytes, address: str, data: bytes | None) -> bytes:
    """The request as it is asked there: what concerns its connection here is left out, and there is a Host and a
    scheme, which links need, and the client's address."""
    headers = [(name, value) for name, value in scope["headers"] if name not in NOT_ASKED]
    if not any(name == b"host" for name, _ in headers):
        host, port = scope["server"]
        headers.append((b"host", f"{host}:{port}".encode()))
    headers += [(SCHEME, scheme), (ADDRESS, address.encode("latin-1", "replace"))]
    if data is not None:
        headers.append((b"content-length", b"%d" % len(data)))
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (scope["method"].encode(), _target(scope), lines, data or b"")


def _target(scope: Scope) -> bytes:
    """The request's address as it came, and always as a path, whatever host it seems to name."""
    query = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return b"/" + quote_from_bytes(target.removeprefix(b"/"), AS_SENT).encode()
