"""HTTP connection of uvicorn with additional limits: size and duration of requests, and number of connections.

httptools buffers a header until it is complete, and uvicorn waits for the rest of a request without a timeout. This
class therefore counts the bytes fed since the last piece of a body, in the head and after it (a chunked body may end in
trailers), and runs a timer from the first byte of a request to its last. A request that exceeds a limit is answered
with a problem, unless the client would take the answer for an earlier request's, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sized
from functools import partial
from typing import Any, NamedTuple

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from telemetry.config.settings import Settings
from telemetry.coordination import rejection_counts
from telemetry.http.response import Response
from telemetry.limits.client_address import Addresses
from telemetry.limits.connections import NOBODY_TRUSTED, UNCOUNTED, Ticket
from telemetry.limits.pending_bytes import CLIENT, PIECE_BYTES, Pending
from telemetry.model import problems
from telemetry.model.problems import Problem
from telemetry.network.client_certificates import CERTIFIED, Certified, ClientCertificates

MAX_HEADERS = 100
"""Maximum number of headers of a request."""

MAX_PARAMETERS = 1_100
"""Maximum number of parameters of a query: a thousand devices, and the other parameters of a route."""

MAX_PIPELINED = 16
"""Maximum number of pipelined requests that wait for an earlier response; beyond it, parsing pauses."""

FED_BYTES = 2**11
"""Bytes fed to the parser in one call. The parser may exceed its limit by this amount. Each waiting request takes some
3 KB of memory, and 25 bytes are enough for one."""

KERNEL_BYTES = 2**17
"""Limit of a response's unsent bytes in the kernel. Its default is megabytes, which would hide whether the client
reads."""

JOINED_BYTES = 2**16
"""Maximum size of a body that is joined with its head to one write; copying a larger one costs more."""

UNSENT_BYTES = 2**14
"""Unsent output of a connection that is not counted, bytes; for 4,000 connections this is 64 MB."""

LINGER_S = 1.0
"""Time for a rejected sender to read the answer before the connection is closed, s; a reset could discard the
answer."""


class ConnectionLimits(NamedTuple):
    """Limits of one connection, and of the number of connections."""

    max_header_bytes: int
    max_body_bytes: int
    max_connections: int
    request_timeout_s: float
    keep_alive_s: int
    max_query_bytes: int
    max_connections_per_address: int = 0
    addresses: Addresses = NOBODY_TRUSTED
    min_compressed_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        c = settings.collector
        return cls(
            c.max_header_bytes,
            c.max_body_bytes,
            c.max_http_connections,
            float(c.request_timeout_s),
            c.keep_alive_s,
            c.max_query_bytes,
            c.max_http_connections_per_address,
            Addresses.of(settings),
            settings.api.min_compressed_bytes,
        )


class Shared(NamedTuple):
    """State shared by all connections of a server: limits, account of waiting bytes, client certificates."""

    limits: ConnectionLimits
    pending: Pending
    clients: ClientCertificates | None = None


def limited(
    limits: ConnectionLimits,
    pending: Pending,
    make: Callable[..., LimitedProtocol] | None = None,
    clients: ClientCertificates | None = None,
) -> Callable[..., asyncio.Protocol]:
    """Returns a factory of connections for uvicorn. `make` creates a subclass instead."""
    shared = Shared(limits, pending, clients)

    def connection(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        ticket: Ticket = UNCOUNTED,
    ) -> LimitedProtocol:
        return (make or LimitedProtocol)(shared, config, server_state, app_state, _loop, ticket)

    return connection


class _Refusal(Exception):
    """Stops parsing and rejects the request."""

    def __init__(self, kind: Problem, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class _Flow(FlowControl):
    """uvicorn's flow control, with reading paused while requests wait in the pipeline."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class _Answering:
    """The transport as the code that answers a request sees it: closing it first lets the sender read the answer.

    A head with a Content-Length is sent together with the body in one write, which saves CPU and wakes the reader once.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle, end: Callable[[], None]) -> None:
        self.is_closing = transport.is_closing
        self._transport = transport
        self._cycle = cycle
        self._end = end
        self._head = b""
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Write, or hold the head until the body follows."""
        if self._head:
            data = self._with_head(data)
        elif not self._is_begun and self._cycle.chunked_encoding is False and self._cycle.scope["method"] != "HEAD":
            self._head, self._is_begun = data, True
            return
        self._transport.write(data)

    def _with_head(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        if len(data) <= JOINED_BYTES:
            return head + data
        self._transport.write(head)
        return data

    def close(self) -> None:
        """Close the connection after the written data."""
        if self._head:
            self._transport.write(self._with_head(b""))
        self._end()


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        shared: Shared,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
        ticket: Ticket,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._limits, self.pending, self._clients = shared
        self._certified: Certified | None = None
        self._ticket = ticket
        self._is_refused = False
        self._is_arriving = False
        self._is_in_head = False
        self._unparsed = b""  # received, but too many requests are waiting
        self._gathered_bytes = 0  # fed since the request began or since the last piece of its body
        self._header_bytes = 0
        self._body_bytes = 0
        self._arrival_timer: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
        self._unread_bytes = 0
        self._unread_timer: asyncio.TimerHandle | None = None

    # The connection ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if self._clients is not None:
            self._certified = self._clients.certified(transport.get_extra_info("peercert"))
        transport.set_write_buffer_limits(UNSENT_BYTES)
        if isinstance(self.client, tuple):  # otherwise a unix socket
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        if self._ticket.refusal:
            self._refuse(_Refusal(problems.BUSY, self._ticket.refusal))
        else:  # uvicorn has no timeout for the first request
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._ticket.close()
        self._stop_timer()
        self._stop_unread_timer()
        self.pending.resume(self)
        self._unset_keepalive_if_required()
        if self._answering is not None:  # uvicorn notifies only the last of several requests
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        if not self._is_arriving and (self.cycle is None or self.cycle.response_complete):
            super().timeout_keep_alive_handler()

    # Receiving ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        """Parse received bytes until too many requests wait; then reading pauses."""
        data, at = self._unparsed, 0
        while at < len(data) and self.may_parse:
            self._feed(data[at : at + FED_BYTES])
            at += FED_BYTES
        self._unparsed = b"" if self._is_refused else data[at:]
        if self._is_arriving and self._arrival_timer is None and not self._is_refused:
            self._start_timer()

    @property
    def may_parse(self) -> bool:
        """True if more received bytes may be parsed now."""
        return not self._is_refused and len(self.pipeline) < MAX_PIPELINED

    def _feed(self, piece: bytes) -> None:
        self._gathered_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # upgrades are not supported: the request is answered as plain HTTP
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, _Refusal) else _Refusal(problems.INVALID_REQUEST, str(error)))
        else:
            if self._is_arriving and self._gathered_bytes > self._limits.max_header_bytes:
                self._refuse(self._too_much())

    def _too_much(self) -> _Refusal:
        most = self._limits.max_header_bytes
        if self._is_in_head and not self.headers and len(self.url) > most // 2:
            return _Refusal(problems.ADDRESS_TOO_LONG, f"request line and headers may have at most {most} bytes")
        return _Refusal(problems.HEADERS_TOO_LARGE, f"request line and headers may have at most {most} bytes")

    def on_message_begin(self) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()
        self._is_arriving = self._is_in_head = True
        self._gathered_bytes = self._header_bytes = self._body_bytes = 0
        super().on_message_begin()
        if self._certified is not None:
            self.scope[CERTIFIED] = self._certified  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + len(": \r\n"))
        if len(self.headers) > MAX_HEADERS:
            raise _Refusal(problems.HEADERS_TOO_LARGE, f"a request may have at most {MAX_HEADERS} headers")

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.max_header_bytes:
            raise self._too_much()

    def on_headers_complete(self) -> None:
        self._check_host()
        self._check_query(self.url.partition(b"?")[2])
        super().on_headers_complete()  # raises for an invalid URL, which is a fault of the head
        self._is_in_head = False
        answering = _Answering(self.transport, self.cycle, self._end)
        self.cycle.transport = answering  # type: ignore[assignment]  # it uses no more of it

    def may_answer(self, method: bytes) -> bool:
        """True if a connection may answer a request right after its head: it has this method, uses HTTP/1.1 keep-alive,
        and no earlier request is waiting for its response."""
        is_free = (self.cycle is None or self.cycle.response_complete) and not self.pipeline
        if not is_free or self.flow.write_paused or self.transport.is_closing():
            return False
        if self.parser.get_method() != method or self.parser.get_http_version() != "1.1":
            return False
        return bool(self.parser.should_keep_alive())

    def _check_host(self) -> None:
        """Require one Host header for HTTP/1.1 (RFC 9112 3.2); simple HTTP/1.0 devices may send none."""
        hosts = sum([name == b"host" for name, _ in self.headers])
        if hosts > 1:
            raise _Refusal(problems.INVALID_REQUEST, "a request may have only one Host header")
        if not hosts and self.parser.get_http_version() == "1.1":
            raise _Refusal(problems.INVALID_REQUEST, "an HTTP/1.1 request needs a Host header")

    def _check_query(self, query: bytes) -> None:
        if len(query) > self._limits.max_query_bytes:
            raise _Refusal(problems.ADDRESS_TOO_LONG, f"a query may have at most {self._limits.max_query_bytes} bytes")
        if query.count(b"&") >= MAX_PARAMETERS:
            raise _Refusal(problems.ADDRESS_TOO_LONG, f"a query may have at most {MAX_PARAMETERS} parameters")

    def on_body(self, body: bytes) -> None:
        self._gathered_bytes = 0
        self._body_bytes += len(body)
        if self.cycle.response_complete and self._body_bytes > self._limits.max_body_bytes:
            raise _Refusal(problems.BODY_TOO_LARGE, "the request needs no body")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_arriving = False
        self._stop_timer()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, partial(self._run, app))

    async def _run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CLIENT] = self
        response = Response(self, scope, send, self._limits.min_compressed_bytes)
        try:
            await app(scope, receive, response.send)
        finally:
            response.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._unparsed and not self.pipeline:
            self._parse()
        self.flow.resume_reading()  # the next request has left the pipeline

    # Timeouts ----------------------------------------------------------------------------------------

    def _start_timer(self) -> None:
        self._arrival_timer = self.loop.call_later(self._limits.request_timeout_s, self._on_late)

    def _stop_timer(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _on_late(self) -> None:
        self._arrival_timer = None
        if self.flow.read_paused:  # reading is paused on this side
            self._start_timer()
        else:
            detail = f"a request may take at most {self._limits.request_timeout_s:g} s to arrive"
            self._refuse(_Refusal(problems.TIMED_OUT, detail))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unread()
        self.pending.stall(
            self, self._unread_bytes + (PIECE_BYTES if self.scheme == "https" else 0)
        )  # TLS has two buffers

    def resume_writing(self) -> None:
        super().resume_writing()
        self.pending.resume(self)
        self._stop_unread_timer()

    def _watch_unread(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(self._limits.keep_alive_s, self._on_unread)

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _on_unread(self) -> None:
        """Close if the client has read none of the waiting response since the timer began."""
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_unread()
        else:
            self.transport.abort()

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed, or is being closed at once."""
        return self.transport.is_closing()

    def disconnect(self) -> None:
        """Close the connection at once and drop its unsent output."""
        self.transport.abort()

    # Rejection ---------------------------------------------------------------------------------------

    def refuse_busy(self, detail: str) -> None:
        """Answer 503 and close: there is no room for the rest of the request."""
        self._refuse(_Refusal(problems.BUSY, detail))

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer if that is still possible, and close after the sender had time to read the answer."""
        rejection_counts.count(refusal.kind)
        self._is_refused = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        if self._is_arriving and not self._is_in_head:
            self._refuse_body(refusal)
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # an earlier response is sent first, and ends the connection
        else:
            self._answer(refusal)

    def _refuse_body(self, refusal: _Refusal) -> None:
        if self.cycle.response_complete:
            self.transport.close()
        elif self.pipeline or self.cycle.response_started:
            self.transport.abort()
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._answer(refusal)

    def _answer(self, refusal: _Refusal) -> None:
        self._write(refusal)
        self._linger(LINGER_S)

    def _end(self) -> None:
        """Close after an answer. While the request is still arriving, a reset would discard the answer at the sender.

        After an answer that was cut off, the client may read the rest for `LINGER_S`.
        """
        if self._answering is not None and self._answering.response_started and not self._answering.response_complete:
            self.loop.call_later(LINGER_S, self.transport.abort)
        if self._is_arriving and not self._is_refused and not self.pipeline:
            self._is_refused = True
            self._stop_timer()
            self._linger(self._limits.request_timeout_s)
        else:
            self.transport.close()

    def _linger(self, most_s: float) -> None:
        """Shut down our side, and close when the sender does, or after `most_s`; received data is dropped."""
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(most_s, self.transport.close)

    def _write(self, refusal: _Refusal) -> None:
        body = problems.body(refusal.kind, str(refusal))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", problems.CONTENT_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if refusal.kind is problems.BUSY:
            headers.append((b"retry-after", b"2"))
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join((STATUS_LINE[refusal.kind.status], *lines, b"\r\n", body)))
