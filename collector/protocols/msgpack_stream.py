"""msgpack over TCP for the simplest devices: maps, or arrays of maps, one after another.

The reply to each is a map, as the reply to a JSON line is a line (json_replies.py). A message that is valid msgpack but
not a valid record is rejected alone. After bytes that are not msgpack the next message cannot be found, so they end the
connection.
"""

from __future__ import annotations

from typing import ClassVar

import msgpack
import msgspec

from collector.framing.decoder import Message, Received, Rejected
from collector.protocols.json_replies import (
    WELCOME,
    denied,
    is_hello,
    not_stored,
    read_records,
    reason,
    received,
    refused,
    rejected,
    take_token,
)
from collector.protocols.msgpack_base import Binary
from telemetry.codec import legacy_fields
from telemetry.codec.msgpack_decoder import BYTES_PER_CONTAINER, Truncated, read, skip
from telemetry.codec.record_parser import Arrival
from telemetry.codec.typed_decoder import Shapes
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.model.errors import RecordError, SyntaxFault
from telemetry.model.record import Sent

BAD_MSGPACK = "Invalid msgpack format."

_encode = msgspec.msgpack.Encoder().encode


class MsgpackStream(Binary):
    """The decoder of one connection (see framing/decoder.py)."""

    PROTOCOL: ClassVar[str] = "msgpack"

    def __init__(self, max_bytes: int, max_records: int) -> None:
        super().__init__(max_bytes, max_records)
        self._shapes = Shapes()
        self._unpacker: msgpack.Unpacker | None = None  # finds where the values of the buffer end
        self._taken = 0  # bytes of the unpacker's input that were cut off

    def _take(self, data: bytes | bytearray, messages: list[Message], arrival: Arrival) -> None:
        at = 0
        while at < len(data) and not self._is_over:
            room = self._max_bytes + 1 - len(self._buffer)
            self._go_on(data[at : at + room], messages, arrival)
            at += room

    def _go_on(self, piece: bytes | bytearray, messages: list[Message], arrival: Arrival) -> None:
        if self._unpacker is None:  # made for each piece, because an unpacker keeps the largest buffer it ever had
            self._unpacker = msgpack.Unpacker(read_size=len(piece), max_buffer_size=self._max_bytes + 1)
            self._taken = 0
        self._buffer += piece
        self._unpacker.feed(piece)
        try:
            while self._buffer:
                skip(self._unpacker)
                messages.append(self._cut(self._unpacker.tell(), arrival))
        except Truncated:
            if len(self._buffer) > self._max_bytes:
                messages.append(self._refuse_length())
        except SyntaxFault as fault:
            messages.append(self._end(str(fault)))
        if not self._buffer:
            self._unpacker = None

    def _cut(self, end: int, arrival: Arrival) -> Message:
        size_bytes, self._taken = end - self._taken, end
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return self._refuse_length() if size_bytes > self._max_bytes else self._message(data, arrival)

    def _refuse_length(self) -> Message:
        why = f"message longer than {self._max_bytes} bytes"
        return self._over(Rejected(problems.BODY_TOO_LARGE, why, _encode(rejected(legacy_fields.NOT_PROCESSED, why))))

    def _malformed(self, why: str) -> Rejected:
        return Rejected(problems.INVALID_MSGPACK, why, _encode(rejected(BAD_MSGPACK, why)))

    def _message(self, data: bytes, arrival: Arrival) -> Message:
        records = self._shapes.msgpack(data, "tcp", "msgpack", arrival)
        if records is not None and len(records) <= self._max_records:
            return _received(records, len(data))
        return self._plain_message(data, arrival)

    def _plain_message(self, data: bytes, arrival: Arrival) -> Message:
        try:
            value = read(data, self._max_bytes // BYTES_PER_CONTAINER)
            token = take_token(value)
            if is_hello(value, token):
                return Received([], len(data), _encode(WELCOME), _not_stored, token=token, denied=_denied)
            records = read_records(value, self._max_records, "msgpack", arrival)
        except SyntaxFault as fault:
            return self._malformed(str(fault))
        except RecordError as error:
            return Rejected(problems.INVALID_RECORD, reason(error), _encode(refused(error)))
        self._shapes.learn(value if isinstance(value, list) else [value])
        return _received(records, len(data))._replace(token=token)


def _received(records: list[Sent], size_bytes: int) -> Received:
    return Received(records, size_bytes, _encode(received(len(records))), _not_stored, denied=_denied)


def _denied(why: Denied) -> bytes:
    return _encode(denied(why))


def _not_stored(why: str) -> bytes:
    return _encode(not_stored(why))
