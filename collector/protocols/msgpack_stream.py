"""msgpack over TCP for the simplest devices: maps, or arrays of maps, one after another.

Each is answered by a map as a JSON line is by a line (answers.py). A message that is good msgpack and no good
record costs only itself; behind bytes that are no msgpack nothing can be told apart, so they end the connection.
"""

from __future__ import annotations

import msgpack
import msgspec

from collector.protocols.answers import not_stored, read_records, reason, received, refused, rejected
from collector.protocols.contract import Message, Received, Rejected
from telemetry import older
from telemetry.errors import RecordError, SyntaxFault
from telemetry.fields import Arrival
from telemetry.msgpack_value import BYTES_PER_CONTAINER, Truncated, read, skip

BAD_MSGPACK = "Invalid msgpack format."

_encode = msgspec.msgpack.Encoder().encode


class MsgpackStream:
    """The decoder of one connection (see contract.py)."""

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._buffer = bytearray()
        self._unpacker: msgpack.Unpacker | None = None  # finds where the values of the buffer end
        self._taken = 0  # of the bytes that the unpacker was fed
        self._is_over = False

    @property
    def waits_for_quiet(self) -> bool:
        return False

    @property
    def is_mid_message(self) -> bool:
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Take what was received; returns the messages that are complete."""
        messages: list[Message] = []
        at = 0
        while at < len(data) and not self._is_over:
            room = self._max_bytes + 1 - len(self._buffer)
            self._go_on(data[at : at + room], messages, arrival)
            at += room
        return messages

    def quiet(self, _arrival: Arrival) -> list[Message]:
        """Silence means nothing here."""
        return []

    def eof(self, _arrival: Arrival) -> list[Message]:
        """The end of sending."""
        if self._is_over or not self._buffer:
            return []
        return [self._end("cut short")]

    def _go_on(self, piece: bytes | bytearray, messages: list[Message], arrival: Arrival) -> None:
        if self._unpacker is None:  # made for a piece, since one that lasts keeps the largest buffer it ever had
            self._unpacker = msgpack.Unpacker(read_size=len(piece), max_buffer_size=self._max_bytes + 1)
            self._taken = 0
        self._buffer += piece
        self._unpacker.feed(piece)
        try:
            while self._buffer:
                skip(self._unpacker)
                messages.append(self._take(self._unpacker.tell(), arrival))
        except Truncated:
            if len(self._buffer) > self._max_bytes:
                messages.append(self._refuse_length())
        except SyntaxFault as fault:
            messages.append(self._end(str(fault)))
        if not self._buffer:
            self._unpacker = None

    def _take(self, end: int, arrival: Arrival) -> Message:
        size_bytes, self._taken = end - self._taken, end
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return self._refuse_length() if size_bytes > self._max_bytes else self._message(data, arrival)

    def _refuse_length(self) -> Message:
        self._is_over = True
        self._buffer.clear()
        why = f"message longer than {self._max_bytes} bytes"
        return Rejected(why, _encode(rejected(older.NOT_PROCESSED, why)), last=True)

    def _end(self, why: str) -> Message:
        self._is_over = True
        self._buffer.clear()
        return Rejected(why, _encode(rejected(BAD_MSGPACK, why)), last=True)

    def _message(self, data: bytes, arrival: Arrival) -> Message:
        try:
            value = read(data, self._max_bytes // BYTES_PER_CONTAINER)
            records = read_records(value, self._max_records, "msgpack", arrival)
        except SyntaxFault as fault:
            return Rejected(str(fault), _encode(rejected(BAD_MSGPACK, str(fault))))
        except RecordError as error:
            return Rejected(reason(error), _encode(refused(error)))
        return Received(records, len(data), _encode(received(len(records))), _not_stored)


def _not_stored(why: str) -> bytes:
    return _encode(not_stored(why))
