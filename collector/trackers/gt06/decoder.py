"""GT06 over TCP, the protocol of Concox and of many compatible vendors.

    78 78 | length u8  | type | content | serial u16 | CRC-16/X-25 u16 | 0D 0A      length: from type to CRC
    79 79 | length u16 | type | content | serial u16 | CRC-16/X-25 u16 | 0D 0A

The first frame contains the device's id (type 01), and may contain the UTC offset of its clock; frames before it are
rejected. A reply has the same type and serial without content. Contents are decoded in message_types.py.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar

from collector.framing.decoder import Message
from collector.framing.frame_decoder import Cut, Framed, FrameFault, received
from collector.trackers.checksums import crc16_x25
from collector.trackers.gt06 import message_types as content
from collector.trackers.position import sent
from telemetry.codec.record_parser import Arrival
from telemetry.hot_store.entry_codec import Aside
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "gt06"
SHORT, LONG = b"\x78\x78", b"\x79\x79"
END = b"\r\n"
_START = re.compile(rb"xx|yy")
MIN_BYTES = 5
"""Type, serial and checksum: the length of a frame without content."""

LOGIN = 0x01
TIME_REQUEST = 0x8A
ADDRESS_ANSWER = 0x97
NO_ADDRESS = b"NA&&NA&&0##"
NO_SERIAL = b"\0\0"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Gt06(Framed):
    """The decoder of one connection (see framing/decoder.py)."""

    PROTOCOL: ClassVar[str] = "gt06"

    def cut(self, buffer: bytearray) -> Cut | None:
        """The next frame. If its length does not fit: all bytes up to the next end of a frame, to be rejected."""
        start = _start(buffer)
        if start:
            return Cut(start)
        if len(buffer) < 4:
            return None
        is_short = buffer[:2] == SHORT
        length = buffer[2] if is_short else int.from_bytes(buffer[2:4], "big")
        size_bytes = length + (5 if is_short else 6)
        if length >= MIN_BYTES and len(buffer) < size_bytes:
            return None
        if length < MIN_BYTES or buffer[size_bytes - 2 : size_bytes] != END:
            end = buffer.find(END)
            size_bytes = end + 2
            if end < 0:
                return None
        return Cut(size_bytes, bytes(buffer[:size_bytes]))

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        """Decode a frame."""
        kind, body, serial = _checked(frame)
        is_long = frame[:2] == LONG
        ack = b""
        if content.is_answered(kind, len(body), is_long=is_long):
            ack = framed(kind, b"", serial, LONG if is_long and kind in content.LONG_ALIKE else SHORT)
        if kind == LOGIN:
            self._log_in(body)
            return received([], frame, ack)
        if not self.device_id:
            raise FrameFault("a frame came before the device's id")
        if kind == TIME_REQUEST:
            return received([], frame, framed(kind, _clock(arrival), NO_SERIAL))
        if kind == content.ADDRESS_REQUEST:
            ack = framed(ADDRESS_ANSWER, bytes((len(NO_ADDRESS), 0, 0, 0, 0)) + NO_ADDRESS, NO_SERIAL, LONG)
        try:
            return received(self._records(kind, body, arrival, is_long=is_long), frame, ack)
        except RecordError as error:  # the device would send it again and again
            return received([], frame, ack, (Aside(self.device_id, str(error), frame),))

    def _log_in(self, body: bytes) -> None:
        digits = body[:8].hex()[1:]
        if len(digits) != 15 or not digits.isdecimal():
            raise FrameFault("the device's id must be 15 digits")
        self.device_id = digits
        zone = _zone(int.from_bytes(body[10:12], "big")) if len(body) >= 12 else None
        if zone is not None:
            self.options = self.options._replace(timezone=zone)

    def _records(self, kind: int, body: bytes, arrival: Arrival, *, is_long: bool) -> list[Sent]:
        decoded = content.read(kind, body, self.options.timezone, is_long=is_long)
        if decoded is None:
            return []
        at_us, attributes, position = decoded
        return [sent(self.device_id, SOURCE, self.options, arrival, at_us, attributes, position)]


def framed(kind: int, body: bytes, serial: bytes, head: bytes = SHORT) -> bytes:
    """Encode a frame for the device."""
    length = MIN_BYTES + len(body)
    inner = length.to_bytes(1 if head == SHORT else 2, "big") + bytes((kind,)) + body + serial
    return head + inner + crc16_x25(inner).to_bytes(2, "big") + END


def _start(buffer: bytearray) -> int:
    """Position where the first frame begins, or may begin. The bytes before it are skipped."""
    if found := _START.search(buffer):
        return found.start()
    return len(buffer) - 1 if buffer[-1] in (SHORT[0], LONG[0]) else len(buffer)


def _checked(frame: bytes) -> tuple[int, bytes, bytes]:
    """Type, content and serial of a frame. Raises `FrameFault` if its length or checksum is wrong."""
    length_bytes = 1 if frame[:2] == SHORT else 2
    length = int.from_bytes(frame[2 : 2 + length_bytes], "big")
    if length < MIN_BYTES or len(frame) != length + length_bytes + 4:
        raise FrameFault(f"a length of {length} in a frame of {len(frame)} bytes")
    inner, crc = frame[2:-4], int.from_bytes(frame[-4:-2], "big")
    if crc16_x25(inner) != crc:
        raise FrameFault(f"the checksum is {crc16_x25(inner):04x}, the frame contains {crc:04x}")
    return inner[length_bytes], inner[length_bytes + 1 : -2], inner[-2:]


def _zone(bits: int) -> timezone | None:
    """UTC offset: a decimal number HHMM, then four bits; the highest bit means west.

    None if there is no such zone, because some models send another value here.
    """
    hours, minutes = divmod(bits >> 4, 100)
    if hours > 14 or minutes > 59:
        return None
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if bits & 8 else offset)


def _clock(arrival: Arrival) -> bytes:
    now = _EPOCH + timedelta(microseconds=arrival.now_us)
    return bytes((now.year % 100, now.month, now.day, now.hour, now.minute, now.second))
