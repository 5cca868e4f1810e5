"""Another Whimbrel: numbered frames to its TCP port, which stores each once however often it is sent.

The frame format is defined in collector/protocols/msgpack_frames.py, which must not be imported here; a test compares
them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import urlsplit

import msgspec

from telemetry.codec.frames import HEAD_BYTES, Detail, FrameAnswer, decode, frame
from telemetry.model.errors import BusyError, RecordError, SenderError
from worker.courier.delivery.http_client import TlsFiles, port_of, tls_of
from worker.courier.delivery.record_batches import taken_msgpack
from worker.courier.targets.target import Batch, BatchRefused, Bounds, Sent

VERSION = 1
HELLO = 0
STORED, REPEATED, REFUSED, BUSY, DENIED = 0, 1, 2, 3, 6
USUAL_PORTS = {"whimbrel": 9999, "whimbrels": 9999}

BOUNDS = Bounds(1_000, 2**19)
"""Half of a collector's default limit. It must never change: a batch sent again must have the same records."""

MOST_ANSWER_BYTES = 2**20


class Whimbrel:
    """A connection to a collector, made on first use."""

    bounds = BOUNDS
    encode = staticmethod(taken_msgpack)

    def __init__(self, url: str, timeout_s: float, files: TlsFiles, key: str, sent: Sent) -> None:
        self._host, self._port = urlsplit(url).hostname or "", port_of(url, USUAL_PORTS)
        self._timeout_s = timeout_s
        self._tls = tls_of(files) if url.startswith("whimbrels:") else None
        self._key, self._sent = key, sent
        self._socket: socket.socket | None = None

    def send(self, batch: Batch) -> bool:
        """See target.py."""
        frame = frame_of(batch)
        try:
            connection = self._connected()
            connection.sendall(frame)
            answer = self._answer(connection)
        except BaseException:
            self.close()
            raise
        self._sent(len(frame))
        return self._understood(answer, batch)

    def _understood(self, answer: FrameAnswer, batch: Batch) -> bool:
        """After anything but success the connection is replaced: the collector stores no later batch on the old one."""
        if answer.number == batch.number and answer.status in (STORED, REPEATED):
            return answer.status == STORED
        self.close()
        detail = answer.detail or Detail()
        if answer.status == BUSY:
            raise BusyError(f"it has no room: {detail.reason}")
        if answer.status == DENIED:
            raise SenderError(f"it requires another key: {detail.reason}")
        if answer.status == REFUSED and detail.index is not None:
            raise RecordError(detail.field, None, detail.reason, detail.index)
        raise BatchRefused(f"it rejected a batch: {detail.reason or answer}")

    def _connected(self) -> socket.socket:
        if self._socket is None:
            try:
                plain = socket.create_connection((self._host, self._port), self._timeout_s)
            except OSError as error:
                raise OSError(f"cannot reach {self._host}:{self._port}: {error}") from error
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain if self._tls is None else self._secured(plain, self._tls)
            if self._key:
                self._say_hello(self._socket)
        return self._socket

    def _say_hello(self, connection: socket.socket) -> None:
        """Send the key for this connection."""
        connection.sendall(frame((HELLO, self._key)))
        answer = self._answer(connection)
        detail = answer.detail or Detail()
        if answer.status == BUSY:
            raise BusyError(f"it cannot check the key now: {detail.reason}")
        if answer.status != STORED:
            raise SenderError(f"it rejects the key: {detail.reason or answer}")

    def _secured(self, plain: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        try:
            return tls.wrap_socket(plain, server_hostname=self._host)
        except OSError:
            plain.close()
            raise

    def _answer(self, connection: socket.socket) -> FrameAnswer:
        length = int.from_bytes(self._read(connection, HEAD_BYTES), "big")
        if not 0 < length <= MOST_ANSWER_BYTES:
            raise SenderError(f"{self._host}:{self._port} is not a Whimbrel: it responds with {length} bytes")
        data = self._read(connection, length)
        try:
            return decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise SenderError(f"{self._host}:{self._port} is not a Whimbrel: it responds {data[:80]!r}") from None

    def _read(self, connection: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            received = connection.recv(count - len(data))
            if not received:
                raise ConnectionError(f"{self._host}:{self._port} closed the connection")
            data += received
        return data

    def close(self) -> None:
        """See target.py."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def frame_of(batch: Batch) -> bytes:
    """The frame of a batch."""
    records = [msgspec.Raw(item) for item in batch.items]
    return frame((VERSION, batch.sender, batch.number, records))
