"""Connections to the query program: just so much of HTTP/1.1 as it takes to ask a program of ours over a unix socket.

A general HTTP client takes twice the CPU of a request, and 10 MB of memory. An answer that breaks off is never taken
for a whole one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httptools

from api.execution.slots import Reader, SlotLimits, Slots
from api.requests.asker import THE_BOX, Asker
from api.requests.query_headers import KEEP_ALIVE_S, MAX_CONNECTIONS
from telemetry.http.problem_responses import ProblemError

CONNECT_TIMEOUT_S = 2.0
"""How long a request may wait for a connection of its own."""

MAX_WAITING = 1_000
"""Requests that may wait for a connection."""

MAX_WAITING_BYTES = 2**18
"""Bytes of an answer that wait for who reads it, from which on no more are read of the socket."""


class Unanswered(Exception):
    """There is no answer, or no more of it: the program is away, silent, or broke off."""


class Connection(asyncio.Protocol):
    """One connection, on which requests are asked one after the other: `ask`, `head`, then `read` to the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._changed: asyncio.Future[bool] | None = None
        self._chunks: list[bytes] = []
        self._is_head = self._has_head = self._is_whole = self._stays_open = self._is_paused = False
        self.is_lost = self.has_begun = False
        self.idle_since_s = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    def ask(self, request: bytes, is_head: bool) -> None:
        """Send a request, whole. What was asked before must have been read to its end."""
        self._parser = httptools.HttpResponseParser(self)
        self._is_head = is_head
        self._has_head = self._is_whole = self.has_begun = False
        self.headers = []
        if self._transport is not None:
            self._transport.write(request)

    async def head(self, timeout_s: float) -> None:
        """Wait until `status` and `headers` are there. Raises `Unanswered`."""
        while not self._has_head:
            await self._change(timeout_s)

    async def read(self, timeout_s: float) -> bytes:
        """The next bytes of the body; none at its end. Raises `Unanswered`."""
        while not self._chunks and not self._is_whole:
            await self._change(timeout_s)
        data = b"".join(self._chunks)
        self._chunks.clear()
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    @property
    def is_read(self) -> bool:
        """Whether the answer was read to its end."""
        return self._is_whole and not self._chunks

    @property
    def is_free(self) -> bool:
        """Whether something else may be asked."""
        return self.is_read and self._stays_open and not self.is_lost

    def close(self) -> None:
        """Close it. An answer under way is dropped, by which the program hears that nobody wants it."""
        if self._transport is not None:
            self._transport.abort()

    async def _change(self, timeout_s: float) -> None:
        """Wait for something to come."""
        if self.is_lost:
            raise Unanswered("it closed the connection")
        self._changed = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._wake, False)
        try:
            has_come = await self._changed
        finally:
            timer.cancel()
            self._changed = None
        if not has_come:
            raise Unanswered(f"it was silent for {timeout_s:g} s")

    def _wake(self, has_come: bool = True) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(has_come)

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._is_whole:  # nobody asked
            self.close()
            return
        self.has_begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            return
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        if self._chunks and len(self._chunks[0]) >= MAX_WAITING_BYTES and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._wake()

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole. That of an answer to HEAD names a length, but no body comes, as the parser can't know."""
        if self._parser is not None:
            self.status = self._parser.get_status_code()
            self._stays_open = self._parser.should_keep_alive()
        self._has_head = True
        self._is_whole = self._is_head

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._is_whole = True


class Connections:
    """As many connections as are needed at once, up to `MAX_CONNECTIONS`, shared fairly."""

    def __init__(self, socket: Path, silent_s: float, share_percent: int = 100) -> None:
        """A program that is silent for `silent_s` amid an answer is given up."""
        self._socket = socket
        self._idle: list[Connection] = []
        terms = SlotLimits(MAX_CONNECTIONS, MAX_WAITING, CONNECT_TIMEOUT_S, share_percent, shares_slots=True)
        self._slots = Slots(terms, "requests")
        self.silent_s = silent_s

    @asynccontextmanager
    async def asked(
        self, request: bytes, is_head: bool, may_repeat: bool, asker: Asker = THE_BOX, reader: Reader | None = None
    ) -> AsyncIterator[Connection]:
        """A connection on which the head of the answer has come. Raises `Unanswered`.

        Is the answer not read to its end, then the connection is closed. A slow reader is ended while others wait.
        """
        try:
            slot = await self._slots.take(asker, reader)
        except ProblemError as error:
            raise Unanswered(f"too many requests are under way: {error}") from None
        try:
            connection = await self._begun(request, is_head, may_repeat)
            try:
                yield connection
            finally:
                self._put_back(connection)
        finally:
            slot.free()

    async def _begun(self, request: bytes, is_head: bool, may_repeat: bool) -> Connection:
        """One that was idle may have been closed just now: then the request is sent again, on a new one."""
        connection = self._taken()
        if connection is not None:
            try:
                return await self._head(connection, request, is_head)
            except Unanswered:
                if connection.has_begun or not connection.is_lost or not may_repeat:
                    raise
        return await self._head(await self._opened(), request, is_head)

    async def _head(self, connection: Connection, request: bytes, is_head: bool) -> Connection:
        try:
            connection.ask(request, is_head)
            await connection.head(self.silent_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def _taken(self) -> Connection | None:
        """The connection that is idle the shortest, unless the program may be about to close it."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_lost and now_s - connection.idle_since_s < KEEP_ALIVE_S:
                return connection
            connection.close()
        return None

    async def _opened(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_unix_connection(Connection, str(self._socket))
        except OSError as error:  # one of time, too
            raise Unanswered(f"cannot connect: {type(error).__name__}") from None
        return connection

    def _put_back(self, connection: Connection) -> None:
        if connection.is_free:
            connection.idle_since_s = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close those that are idle; the others close with their answers."""
        while self._idle:
            self._idle.pop().close()
