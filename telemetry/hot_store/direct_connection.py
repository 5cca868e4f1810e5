"""Low-latency path for short read commands to Redis: usually answered without a turn of the event loop.

Redis often answers faster than a program can sleep in its event loop and wake up again. If no other command is pending,
the caller therefore polls the socket for up to `SOON_MS` instead of yielding to the event loop, which is blocked
meanwhile. If no response arrives in this time, for example while Redis syncs a group, or if other commands are pending,
it is awaited as usual. Responses arrive in the order of the commands. With concurrent commands polling would serialise
them and lower the throughput (docs/performance.md). A `Line` also supports longer calls, if the caller uses it
exclusively.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from typing import Any, NamedTuple

import hiredis
import redis

SOON_MS = 1
"""Maximum time to poll for a response; 1 ms is the minimum of poll(2)."""

READ_BYTES = 2**16

_MORE = object()
"""Result of the parser for an incomplete response."""


class DirectAsker:
    """Sends commands over one connection without TLS, made as `client` makes it, from a running event loop.

    A command whose connection is closed is sent once more over a new one, so it must only read.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._line: Line | None = None
        self._connecting: asyncio.Task[Line] | None = None

    async def ask(self, *command: str | bytes) -> Any:
        """The response to a non-blocking command. Raises `redis.RedisError`."""
        question = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stubs know no texts of any number
        if self._line is not None:
            try:
                return await self._line.ask(question)
            except redis.ConnectionError:
                pass
        line = await self._connected()
        return await line.ask(question)

    def begin(self, *command: str | bytes) -> Any:
        """The response if it arrives while polling, otherwise a future of it; None without a connection.

        A `redis.ResponseError` is a result of the future, too. It raises other `redis.RedisError`s.
        """
        return None if self._line is None else self._line.begin(hiredis.pack_command(command))  # type: ignore[arg-type]

    async def _connected(self) -> Line:
        """The connection; concurrent callers share one attempt to connect."""
        if self._line is not None and not self._line.is_lost:
            return self._line
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._has_ended)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Line:
        connection: Any = self._pool.make_connection()
        await asyncio.to_thread(connection.connect)
        self._line = Line(connection, self._pool.connection_kwargs["socket_timeout"])
        return self._line

    def _has_ended(self, connecting: asyncio.Task[Line]) -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # the caller has received it, unless it was cancelled

    def close(self) -> None:
        """Close the connection; pending commands raise an error."""
        if self._line is not None:
            self._line.lose(redis.ConnectionError("closed"))


class _Waiting(NamedTuple):
    """A pending command and the time since when it waits."""

    asked_s: float
    answer: asyncio.Future[Any]


class Line:
    """One connection made by redis-py."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self._socket.setblocking(False)
        self._soon = select.poll()
        self._soon.register(self._socket, select.POLLIN)
        self._timeout_s = timeout_s
        self._parser = hiredis.Reader(replyError=redis.ResponseError, notEnoughData=_MORE)
        self._waiting: deque[_Waiting] = deque()
        self._unsent = b""
        self._count_of_turn = 0  # commands in this turn of the event loop
        self._is_crowded = False  # the last turn with commands had more than one
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._on_readable)
        self.is_lost = False

    async def ask(self, question: bytes) -> Any:
        """The response to a packed command. Raises `redis.RedisError`: `ConnectionError` if the connection is gone."""
        if self.is_lost:
            raise redis.ConnectionError("the connection is closed")
        is_alone = self._is_alone()
        self._send(question)
        answer = self._soon_come() if is_alone and not self._unsent else _MORE
        if answer is _MORE and not self.is_lost:
            answer = await self._wait()
        if isinstance(answer, redis.ResponseError):
            raise answer
        if self.is_lost and answer is _MORE:
            raise redis.ConnectionError("Redis closed the connection")
        return answer

    def call(self, command: bytes) -> asyncio.Future[Any]:
        """A future of the response to a packed command; a `redis.ResponseError` is a result, too. Awaiting raises
        `redis.ConnectionError` or `redis.TimeoutError` without a response: then it is unknown whether Redis executed
        it."""
        self._send(command)
        answer = self._wait()
        if self.is_lost:
            answer.set_exception(redis.ConnectionError("the connection is closed"))
        return answer

    def begin(self, question: bytes) -> Any:
        """The response to a packed command, or a future of it; None for an error or if the connection is closed."""
        if self.is_lost:
            return None
        is_alone = self._is_alone()
        self._send(question)
        answer = self._soon_come() if is_alone and not self._unsent else _MORE
        if answer is _MORE:
            return None if self.is_lost else self._wait()
        return None if isinstance(answer, redis.ResponseError) else answer

    def _is_alone(self) -> bool:
        """Count a command. True if it appears to be the only one."""
        if self._count_of_turn == 0:
            self._loop.call_soon(self._on_turn)
        self._count_of_turn += 1
        return self._count_of_turn == 1 and not self._is_crowded and not self._waiting

    def _on_turn(self) -> None:
        self._is_crowded = self._count_of_turn > 1
        self._count_of_turn = 0

    def _soon_come(self) -> Any:
        """Poll for the response; returns it if it arrives in time."""
        if not self._soon.poll(SOON_MS):
            return _MORE
        self._receive()
        return self._next()

    def _wait(self) -> asyncio.Future[Any]:
        """A future of the response."""
        waiting = _Waiting(self._loop.time(), self._loop.create_future())
        self._waiting.append(waiting)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._on_time)
        return waiting.answer

    def lose(self, why: redis.RedisError) -> None:
        """Close the connection."""
        if self.is_lost:
            return
        self.is_lost = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        self._connection.disconnect()
        while self._waiting:
            answer = self._waiting.popleft().answer
            if not answer.done():
                answer.set_exception(why)

    def _send(self, question: bytes) -> None:
        """Send a command after the unsent data."""
        was_waiting = bool(self._unsent)
        self._unsent += question
        if not was_waiting:
            self._flush()
            if self._unsent and not self.is_lost:
                self._loop.add_writer(self._socket, self._on_writable)

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self.lose(redis.ConnectionError(f"cannot send: {error}"))

    def _on_writable(self) -> None:
        self._flush()
        if not self._unsent and not self.is_lost:
            self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return  # it was read while polling
        except OSError as error:
            self.lose(redis.ConnectionError(f"cannot receive: {error}"))
            return
        if data:
            self._parser.feed(data)
        else:
            self.lose(redis.ConnectionError("Redis closed the connection"))

    def _next(self) -> Any:
        """The next complete response."""
        while isinstance(answer := self._parser.gets(), hiredis.PushNotification):
            pass
        return answer

    def _on_readable(self) -> None:
        self._receive()
        while not self.is_lost and (answer := self._next()) is not _MORE:
            if not self._waiting:
                self.lose(redis.ConnectionError("unexpected response"))
                return
            waiting = self._waiting.popleft().answer
            if not waiting.done():  # it may have been cancelled
                waiting.set_result(answer)

    def _on_time(self) -> None:
        """Close after a response is overdue; otherwise check again when the next one would be."""
        self._timer = None
        if not self._waiting:
            return
        left_s = self._waiting[0].asked_s + self._timeout_s - self._loop.time()
        if left_s <= 0:
            self.lose(redis.TimeoutError(f"Redis did not respond for {self._timeout_s:g} s"))
        else:
            self._timer = self._loop.call_later(left_s, self._on_time)
