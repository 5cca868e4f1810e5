"""Batches over TCP: a line each, some of them under way at once, answered in order by a line each.

When a connection is lost, its unanswered lines are sent again over the next one. The collector can't
know them again, so if it had stored a line and only its answer was lost, that line's records double.
"""

from __future__ import annotations

import re
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from cli.delivery import Accepted, Answer, Batch, Busy, Patience, Refused, Tally, json_array, settle
from telemetry.errors import ConfigError

WINDOW = 8
"""Unanswered lines: enough to keep the collector busy meanwhile, few enough to send again."""

TIMEOUT_S = 30.0
"""Seconds that connecting or an answer may take until the connection counts as lost."""

MAX_ANSWER_BYTES = 2**20
READ_BYTES = 2**16

Action = Callable[[socket.socket], None]


class TcpSender:
    """A `Sender` that connects when there is something to send, and again when the connection is lost."""

    def __init__(self, address: tuple[str, int], patience: Patience, tally: Tally) -> None:
        self._address = address
        self._patience = patience
        self._tally = tally
        self._socket: socket.socket | None = None
        self._received = b""
        self._pending: deque[Batch] = deque()
        self._window: deque[Batch] = deque()
        self._held: deque[Batch] = deque()
        self._busy: Busy | None = None

    def send(self, batch: Batch) -> None:
        """Write a batch, and all that waits before it."""
        self._pending.append(batch)
        while self._pending:
            self._step()
        self._try(self._receive_waiting)

    def finish(self) -> None:
        """Wait for all answers, and send again what has to be."""
        while self._pending or self._window or self._held:
            self._step()

    def unanswered(self) -> Iterable[Batch]:
        """What is under way, what was answered "not now", and what waits."""
        return [*self._window, *self._held, *self._pending]

    def close(self) -> None:
        """Leave the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _step(self) -> None:
        """Move one thing on. After a "not now", the window runs empty first, so that one wait is for all of it."""
        if self._busy is not None and not self._window:
            self._pending.extendleft(reversed(self._held))
            self._held.clear()
            busy, self._busy = self._busy, None
            self._patience.failed(busy.reason)
        elif self._busy is None and self._pending and len(self._window) < WINDOW:
            self._try(self._write)
        else:
            self._try(self._receive)

    def _try(self, action: Action) -> None:
        try:
            action(self._connected())
        except OSError as error:
            self.close()
            self._pending.extendleft(reversed(self._window))
            self._window.clear()
            host, port = self._address
            self._patience.failed(f"cannot send to {host}:{port}: {error}")

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._received = b""
        return self._socket

    def _write(self, connection: socket.socket) -> None:
        self._window.append(self._pending.popleft())
        connection.sendall(json_array(self._window[-1]) + b"\n")

    def _receive(self, connection: socket.socket) -> None:
        received = connection.recv(READ_BYTES)
        if not received:
            raise ConnectionError("the collector closed the connection")
        *lines, self._received = (self._received + received).split(b"\n")
        if len(self._received) > MAX_ANSWER_BYTES:
            raise ConfigError(f"cannot use {self._address[0]}:{self._address[1]}: its answers are no lines")
        for line in lines:
            self._answered(line)

    def _receive_waiting(self, connection: socket.socket) -> None:
        """Read the answers that are there already, so that a slow sender hears of a refusal soon."""
        while self._window and select.select([connection], [], [], 0)[0]:
            self._receive(connection)

    def _answered(self, line: bytes) -> None:
        answer = read_answer(line) if self._window else None
        if answer is None:
            raise ConfigError(f"cannot use {self._address[0]}:{self._address[1]}: it answered {line[:80]!r}")
        batch = self._window.popleft()
        if isinstance(answer, Busy):
            self._busy = answer
            self._held.append(batch)
        else:
            self._patience.succeeded()
            self._pending.extendleft(reversed(settle(batch, answer, self._tally)))


_PLACE = re.compile(r"^record (\d+): ")
"""How a reason begins that blames one record: its place in the message, which says nothing to whom has a file."""


class _Line(msgspec.Struct):
    message: str
    accepted: int | None = None
    error: str | None = None
    retry: bool = False


def read_answer(line: bytes) -> Answer | None:
    """What a line from the collector means; None if no collector would answer so."""
    try:
        answer = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if answer.error is not None and answer.retry:
        return Busy(answer.error)
    if answer.error is not None:
        place = _PLACE.match(answer.error)
        return Refused(_PLACE.sub("", answer.error), int(place[1]) if place else None)
    return None if answer.accepted is None else Accepted(answer.accepted)
