"""Frames over TCP: numbered batches, so that a batch that is sent again is not stored twice.

A frame is the length of the following bytes, as 4 bytes, big-endian, then msgpack:

    [1, sender id, batch number, [record, …]]

The sender id is text of 1 to 64 characters. The batch number is an integer from 1 that increases with each batch of
the sender. If the sender id is nil, repeated batches are not recognised. The reply to each frame is a frame, in order:

    [batch number, status, accepted, detail]

`detail` is nil, or a map with a `reason` and, for an invalid record, its `index` and `field`. After an
invalid length the next frame cannot be found, so the connection ends.

If a key is required, a frame sets it for all frames that follow on the connection. Its reply has no batch number:

    [0, key]

Status 6 means that the key is not valid for the frame; the connection ends. A record of a device that the key does not
include is rejected like an invalid record.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple, TypeGuard

import msgspec
from msgspec import Meta

from collector.framing.decoder import Message, Received, Rejected
from collector.protocols.json_replies import read_records, reason, take_token
from collector.protocols.msgpack_base import Binary
from telemetry.codec.msgpack_decoder import ARRAYS, BYTES_PER_CONTAINER, read
from telemetry.codec.record_parser import Arrival
from telemetry.codec.typed_decoder import Shapes
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.model.errors import RecordError, SyntaxFault
from telemetry.model.record import DECODE_ERRORS, Sent

VERSION = 1
HELLO = 0
STORED, REPEATED, REFUSED, BUSY, MALFORMED, ENDED, DENIED = range(7)
"""The statuses. Devices depend on the numbers: they must not change."""

MAX_SENDER_CHARACTERS = 64
MAX_NUMBER = 2**53 - 1
"""The same limits as for HTTP (collector/http/openapi.py). Redis's functions count in doubles."""

HEAD_BYTES = 4
MAX_FRAME_BYTES = 2**24 - 1
"""Limit that makes the first byte of every length 0. Neither JSON nor a msgpack map begins with 0."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    tuple[
        Annotated[int, Meta(ge=VERSION, le=VERSION)],
        Annotated[str, Meta(min_length=1, max_length=MAX_SENDER_CHARACTERS)] | None,
        Annotated[int, Meta(ge=1, le=MAX_NUMBER)],
        msgspec.Raw,
    ]
).decode
"""Decodes a valid frame without decoding its records."""


class Header(NamedTuple):
    """The sender and batch number of a frame."""

    sender: str
    number: int


class Frames(Binary):
    """The decoder of one connection (see framing/decoder.py)."""

    PROTOCOL: ClassVar[str] = "frames"

    CUT_SHORT = "a frame is cut short"

    def __init__(self, max_bytes: int, max_records: int) -> None:
        super().__init__(min(max_bytes, MAX_FRAME_BYTES), max_records)
        self._shapes = Shapes()
        self._wanted_bytes = 0

    @property
    def wanted_bytes(self) -> int:
        return self._wanted_bytes

    def _take(self, data: bytes | bytearray, messages: list[Message], arrival: Arrival) -> None:
        self._buffer += data
        while not self._is_over and (message := self._next(arrival)) is not None:
            messages.append(message)

    def _next(self, arrival: Arrival) -> Message | None:
        if len(self._buffer) < HEAD_BYTES:
            return None
        stop = HEAD_BYTES + int.from_bytes(self._buffer[:HEAD_BYTES], "big")
        if not HEAD_BYTES < stop <= HEAD_BYTES + self._max_bytes:
            why = f"a frame of {stop - HEAD_BYTES} bytes: it may have 1 to {self._max_bytes}"
            return self._over(self._malformed(why)._replace(kind=problems.BODY_TOO_LARGE))
        self._wanted_bytes = max(stop - len(self._buffer), 0)
        if self._wanted_bytes:
            return None
        data = bytes(self._buffer[HEAD_BYTES:stop])
        del self._buffer[:stop]
        return self._message(data, arrival)

    def _malformed(self, why: str) -> Rejected:
        return Rejected(problems.INVALID_MSGPACK, why, answer(None, ENDED, 0, {"reason": why}))

    def _message(self, data: bytes, arrival: Arrival) -> Message:
        return self._quick_message(data, arrival) or self._plain_message(data, arrival)

    def _quick_message(self, data: bytes, arrival: Arrival) -> Message | None:
        """The message of a valid frame whose records have a known shape."""
        if not self._shapes.any:
            return None
        try:
            _, sender, number, values = _decode(data)
        except DECODE_ERRORS:
            return None
        records = self._shapes.msgpack(values, "tcp", "msgpack", arrival) if _is_array(values) else None
        if records is None or len(records) > self._max_records:
            return None
        return _received(Header(sender or "", number), records, len(data))

    def _plain_message(self, data: bytes, arrival: Arrival) -> Message:
        number = None
        try:
            value = read(data, self._max_bytes // BYTES_PER_CONTAINER)
            if _is_hello(value):
                return _hello(value[1], len(data))
            number = _number(value)
            header, values = _checked(value)
            token = take_token(values)
            records = read_records(values, self._max_records, "msgpack", arrival)
        except SyntaxFault as fault:
            return Rejected(problems.INVALID_MSGPACK, str(fault), answer(number, MALFORMED, 0, {"reason": str(fault)}))
        except RecordError as error:
            return Rejected(problems.INVALID_RECORD, reason(error), answer(number, REFUSED, 0, _detail(error)))
        self._shapes.learn(values)
        return _received(header, records, len(data))._replace(token=token)


def _is_array(data: msgspec.Raw) -> bool:
    return memoryview(data)[0] in ARRAYS


def _received(header: Header, records: list[Sent], size_bytes: int) -> Received:
    return Received(
        records,
        size_bytes,
        stored=answer(header.number, STORED, len(records), None),
        not_stored=partial(_busy, header.number),
        sender=header.sender,
        number=header.number,
        repeated=answer(header.number, REPEATED, 0, None),
        denied=partial(_denied, header.number),
    )


def _is_hello(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == 2 and value[0] == HELLO and type(value[1]) is str


def _hello(token: str, size_bytes: int) -> Received:
    stored = answer(None, STORED, 0, None)
    return Received([], size_bytes, stored, partial(_busy, None), token=token, denied=partial(_denied, None))


def _denied(number: int | None, why: Denied) -> bytes:
    if why.kind is problems.BUSY:
        return _busy(number, why.reason)
    if why.place is not None:
        return answer(number, REFUSED, 0, {"index": why.place, "field": "device_id", "reason": why.reason})
    return answer(number, DENIED, 0, {"reason": why.reason})


def answer(number: int | None, status: int, accepted: int, detail: dict[str, object] | None) -> bytes:
    """Encode the reply to a frame."""
    data = _encode((number, status, accepted, detail))
    return len(data).to_bytes(HEAD_BYTES, "big") + data


def _busy(number: int | None, why: str) -> bytes:
    return answer(number, BUSY, 0, {"reason": why})


def _detail(error: RecordError) -> dict[str, object]:
    return {"index": error.index, "field": error.field, "reason": error.reason}


def _number(value: object) -> int | None:
    """The batch number of a frame, if that part of it is valid."""
    number = value[2] if isinstance(value, list) and len(value) > 2 else None
    return number if type(number) is int and 1 <= number <= MAX_NUMBER else None


def _checked(value: object) -> tuple[Header, list[object]]:
    """A frame's header and its values. Raises `SyntaxFault`."""
    if not isinstance(value, list) or len(value) != 4:
        raise SyntaxFault("a frame must be the array [version, sender id, batch number, records]")
    version, sender, number, values = value
    if type(version) is not int or version != VERSION:
        raise SyntaxFault(f"version: must be {VERSION}")
    if sender is not None and not (type(sender) is str and 1 <= len(sender) <= MAX_SENDER_CHARACTERS):
        raise SyntaxFault(f"sender id: must be nil or text of 1 to {MAX_SENDER_CHARACTERS} characters")
    if _number(value) is None:
        raise SyntaxFault("batch number: must be an integer from 1 to 2^53 - 1")
    if not isinstance(values, list):
        raise SyntaxFault("records: must be an array")
    return Header(sender or "", number), values
