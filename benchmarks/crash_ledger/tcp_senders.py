"""Batches over TCP: lines of JSON, bare msgpack, and frames with or without a sender's name."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgpack

from benchmarks.crash_ledger.senders import ANSWER_TIMEOUT_S, Batch, Complain

STORED, SEEN, NOT_NOW = 0, 1, 3
"""Statuses of a frame's answer."""


class LostError(Exception):
    """The connection ended or fell silent before an answer."""


class TcpWay(ABC):
    """One connection, made anew when it was lost; batches go out together and are answered in their order."""

    is_repeated = False
    window = 2

    def __init__(self, port: int, complain: Complain) -> None:
        self._address = ("127.0.0.1", port)
        self._complain = complain
        self._socket: socket.socket | None = None
        self._file: io.BufferedRWPair | None = None

    def send(self, batches: Sequence[Batch], is_cut_off: bool) -> list[bool]:
        """Send all, then read an answer for each; whatever was lost is not acknowledged."""
        answers: list[bool] = []
        try:
            file = self._connected()
            for batch in batches:
                file.write(self._encode(batch))
            file.flush()
            if is_cut_off:
                raise LostError
            for batch in batches:
                answers.append(self._is_stored(self._read(file), batch))
        except (OSError, LostError, ValueError) as error:
            if isinstance(error, ValueError):
                self._complain(f"{type(self).__name__}: no answer of this protocol: {error}")
            self.close()
        return answers + [False] * (len(batches) - len(answers))

    def _connected(self) -> io.BufferedRWPair:
        if self._file is None:
            self._socket = socket.create_connection(self._address, ANSWER_TIMEOUT_S)
            self._file = self._socket.makefile("rwb")
        return self._file

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None and self._file is not None:
            self._socket.close()
            with contextlib.suppress(OSError):
                self._file.close()
        self._socket = self._file = None

    @abstractmethod
    def _encode(self, batch: Batch) -> bytes:
        """A batch as bytes."""

    @abstractmethod
    def _read(self, file: io.BufferedRWPair) -> Any:
        """One answer. Raises `LostError`, and `ValueError` if it isn't one."""

    def _is_stored(self, answer: Any, batch: Batch) -> bool:
        """What lines of JSON and bare msgpack are answered."""
        if answer.get("message") == "Data received" and answer.get("accepted") == len(batch.records):
            return True
        if answer.get("retry") is not True:
            self._complain(f"{type(self).__name__}: {answer}")
        return False


class JsonLines(TcpWay):
    """A line of JSON a batch."""

    def _encode(self, batch: Batch) -> bytes:
        return json.dumps(batch.records).encode() + b"\n"

    def _read(self, file: io.BufferedRWPair) -> Any:
        line = file.readline()
        if not line.endswith(b"\n"):
            raise LostError
        return json.loads(line)


class BareMsgpack(TcpWay):
    """An array of maps a batch."""

    window = 1

    def _encode(self, batch: Batch) -> bytes:
        return bytes(msgpack.packb(batch.records))

    def _read(self, file: io.BufferedRWPair) -> Any:
        unpacker = msgpack.Unpacker()
        while True:
            byte = file.read(1)
            if not byte:
                raise LostError
            unpacker.feed(byte)
            for answer in unpacker:
                return answer


class Frames(TcpWay):
    """A frame a batch. With a name, batches without an answer are sent again, in their order, under their numbers."""

    window = 4

    def __init__(self, port: int, is_named: bool, complain: Complain) -> None:
        super().__init__(port, complain)
        self.is_repeated = is_named
        self._name = uuid.uuid4().hex if is_named else None
        self._sent = 0

    def _encode(self, batch: Batch) -> bytes:
        frame = msgpack.packb([1, self._name, batch.number, batch.records])
        return struct.pack(">I", len(frame)) + bytes(frame)

    def _read(self, file: io.BufferedRWPair) -> Any:
        head = file.read(4)
        if len(head) < 4:
            raise LostError
        body = file.read(struct.unpack(">I", head)[0])
        if len(body) < struct.unpack(">I", head)[0]:
            raise LostError
        return msgpack.unpackb(body)

    def _is_stored(self, answer: Any, batch: Batch) -> bool:
        number, status, accepted, _ = answer
        if number == batch.number and status == STORED and accepted == len(batch.records):
            return True
        if number == batch.number and status == SEEN and self.is_repeated:
            return True
        if number != batch.number or status != NOT_NOW:
            self._complain(f"frame {batch.number}: {answer}")
        return False
