"""Batches over TCP: a frame each, some of them under way at once, answered in order by a frame each.

All frames name this sender and number their batches, so the collector knows one that comes again: a lost answer
doubles nothing. It takes a number only above those before, hence the order here: whatever has to be sent again keeps
its number and goes first; what is left of a refused batch is a new one.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from cli.sending.sender import Accepted, Answer, Batch, Busy, Patience, Refused, Tally, settle
from collector.protocols import msgpack_frames
from telemetry.codec.frames import HEAD_BYTES, Detail, decode, encode, frame
from telemetry.model.errors import ConfigError

WINDOW = 16
"""Unanswered frames: enough that a slow disk, an SD card, syncs many at once; few enough to send again."""

TIMEOUT_S = 30.0
"""Seconds that connecting or an answer may take until the connection counts as lost."""

MAX_ANSWER_BYTES = 2**20
READ_BYTES = 2**16

Action = Callable[[socket.socket], None]


class Numbered(NamedTuple):
    """A batch with the number that it keeps, and its frame."""

    number: int
    batch: Batch
    frame: bytes


class TcpSender:
    """A `Sender` that connects when there is something to send, and again when the connection is lost."""

    def __init__(
        self,
        address: tuple[str, int],
        patience: Patience,
        tally: Tally,
        sender_id: str,
        max_bytes: int,
        tls: ssl.SSLContext | None = None,
        key: str = "",
    ) -> None:
        self._address = address
        self._patience = patience
        self._tally = tally
        self._sender_id = sender_id
        self._max_bytes = max_bytes
        self._tls = tls
        self._key = key
        self._number = 0
        self._socket: socket.socket | None = None
        self._received = b""
        self._pending: deque[Batch] = deque()
        self._window: deque[Numbered] = deque()
        self._again: deque[Numbered] = deque()  # to be sent again, before anything new
        self._busy: Busy | None = None

    def send(self, batch: Batch) -> None:
        """Write a batch, and all that waits before it."""
        self._pending.append(batch)
        while self._pending:
            self._step()
        self._try(self._receive_waiting)

    def finish(self) -> None:
        """Wait for all answers, and send again what has to be."""
        while self._pending or self._window or self._again:
            self._step()

    def unanswered(self) -> Iterable[Batch]:
        """What is under way, what was answered "not now", and what waits."""
        return [*(one.batch for one in (*self._window, *self._again)), *self._pending]

    def close(self) -> None:
        """Leave the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _step(self) -> None:
        """Move one thing on. After a "not now", the window runs empty first, so that one wait is for all of it."""
        if self._busy is not None and not self._window:
            busy, self._busy = self._busy, None
            self._patience.failed(busy.reason)
        elif self._busy is None and (self._again or self._pending) and len(self._window) < WINDOW:
            self._write_next()
        else:
            self._try(self._receive)

    def _try(self, action: Action) -> None:
        try:
            action(self._connected())
        except OSError as error:
            self.close()
            self._send_again(self._window)
            self._window.clear()
            self._busy = None
            host, port = self._address
            self._patience.failed(f"cannot send to {host}:{port}: {error}")

    def _send_again(self, some: Iterable[Numbered]) -> None:
        self._again = deque(sorted((*self._again, *some)))

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._address[0])
            self._received = b""
            if self._key:
                self._say_hello(self._socket)
        return self._socket

    def _say_hello(self, connection: socket.socket) -> None:
        """Say the key, for all that follows. Raises `ConfigError` if it is not taken, `OSError` if it can't be now."""
        connection.sendall(frame((msgpack_frames.HELLO, self._key)))
        while (data := self._next_answer()) is None:
            received = connection.recv(READ_BYTES)
            if not received:
                raise ConnectionError("the collector closed the connection")
            self._received += received
        answer = read_answer(data, 0)
        if answer is None or isinstance(answer, Refused):
            raise self._no_collector(data)
        if isinstance(answer, Busy):
            raise ConnectionError(answer.reason)

    def _write_next(self) -> None:
        """Write what is to be sent again, or else a new batch; one that can't be a frame is refused here."""
        if not self._again:
            batch = self._pending.popleft()
            frame = to_frame(self._sender_id, self._number + 1, batch, self._max_bytes)
            if isinstance(frame, Refused):
                self._settle(batch, frame)
                return
            self._number += 1
            self._again.append(Numbered(self._number, batch, frame))
        self._try(self._write)

    def _write(self, connection: socket.socket) -> None:
        self._window.append(self._again.popleft())
        connection.sendall(self._window[-1].frame)

    def _receive(self, connection: socket.socket) -> None:
        received = connection.recv(READ_BYTES)
        if not received:
            raise ConnectionError("the collector closed the connection")
        self._received += received
        while (answer := self._next_answer()) is not None:
            self._answered(answer)

    def _receive_waiting(self, connection: socket.socket) -> None:
        """Read the answers that are there already, so that a slow sender hears of a refusal soon."""
        while self._window and _is_readable(connection):
            self._receive(connection)

    def _next_answer(self) -> bytes | None:
        stop = HEAD_BYTES + int.from_bytes(self._received[:HEAD_BYTES], "big")
        if len(self._received) >= HEAD_BYTES and stop > MAX_ANSWER_BYTES:
            raise self._no_collector(self._received)
        if len(self._received) < max(HEAD_BYTES, stop):
            return None
        answer, self._received = self._received[HEAD_BYTES:stop], self._received[stop:]
        return answer

    def _answered(self, data: bytes) -> None:
        batch = self._window[0].batch if self._window else []
        answer = read_answer(data, len(batch)) if self._window else None
        if answer is None:
            raise self._no_collector(data)
        numbered = self._window.popleft()
        if isinstance(answer, Busy):
            self._busy = answer
            self._send_again([numbered])
        else:
            self._patience.succeeded()
            self._settle(batch, answer)

    def _settle(self, batch: Batch, answer: Accepted | Refused) -> None:
        self._pending.extendleft(reversed(settle(batch, answer, self._tally)))

    def _no_collector(self, data: bytes) -> ConfigError:
        return ConfigError(f"cannot use {self._address[0]}:{self._address[1]}: it answered {data[:80]!r}")


def _is_readable(connection: socket.socket) -> bool:
    """Whether there is something to read, in the socket or decrypted already."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    return bool(select.select([connection], [], [], 0)[0])


def to_frame(sender_id: str, number: int, batch: Batch, max_bytes: int) -> bytes | Refused:
    """The frame of a batch; or which of its records can't be sent so, or that it is too long."""
    values = []
    for index, row in enumerate(batch):
        try:
            values.append(msgspec.Raw(encode(msgspec.json.decode(row.body))))
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            return Refused(f"cannot be sent as msgpack: {error}; --over http can", index)
    data = encode((msgpack_frames.VERSION, sender_id, number, values))
    if len(data) > max_bytes:
        return Refused(f"{len(data)} bytes as msgpack, at most {max_bytes} are taken")
    return len(data).to_bytes(HEAD_BYTES, "big") + data


def read_answer(data: bytes, records: int) -> Answer | None:
    """What an answer to a batch of so many records means; None if no collector would answer so.

    Raises `ConfigError` if the key does not allow it.
    """
    try:
        answer = decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    detail = answer.detail or Detail()
    if answer.status == msgpack_frames.STORED:
        return Accepted(answer.accepted)
    if answer.status == msgpack_frames.REPEATED:
        return Accepted(records)
    if answer.status == msgpack_frames.DENIED:
        raise ConfigError(f"cannot send with this key: {detail.reason}")
    if answer.status == msgpack_frames.BUSY:
        return Busy(detail.reason)
    if answer.status in (msgpack_frames.REFUSED, msgpack_frames.ENDED):
        field = f"{detail.field}: " if detail.field else ""
        return Refused(field + detail.reason, detail.index)
    return None
