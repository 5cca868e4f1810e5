"""One port for all protocols: the first bytes of a connection tell which it speaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from collector.framing.decoder import Decoder, Message
from telemetry.codec.record_parser import Arrival

MOST_BYTES = 32
"""Of a text that no protocol begins with: by then it is told from the start of a number."""

FRAME_HEAD_BYTES = 5
BINARY_HEAD_BYTES = 9
"""Of H02: a mark, five bytes of a number, three of a time, all in decimal digits of four bits."""

_NUMBER = re.compile(rb"\d+[;$/,]?")
_BEGINNINGS = (
    (b"xx", "gt06"),
    (b"yy", "gt06"),
    (b"*", "h02"),
    (b"##", "gps103"),
    (b"imei:", "gps103"),
    (b"(", "tk103"),
    (b"+", "gl200"),
    (b"IMEI ", "nmea"),
    (b"QZE,", "nmea"),
)
"""How the frames of a protocol begin."""


def choose(start: bytes) -> str | None:
    """The protocol of a connection that begins so; None if more must come."""
    first = start[0]
    if first == 0xFF:
        return "teltonika"
    if first == 0x00:
        return _of_zero(start)
    if first >= 0x80:
        return "msgpack"
    if first == ord("$"):
        return _of_dollar(start)
    for beginning, protocol in _BEGINNINGS:
        if start.startswith(beginning):
            return protocol
        if beginning.startswith(start):
            return None
    return _of_number(start) if start[:1].isdigit() else "json"


def _of_zero(start: bytes) -> str | None:
    """A frame's length, then an array of four; or the length of a number, then its digits."""
    if len(start) < FRAME_HEAD_BYTES:
        return None
    is_number = start[1] in (0x0E, 0x0F, 0x10, 0x11) and start[2:FRAME_HEAD_BYTES].isdigit()
    return "teltonika" if is_number else "frames"


def _of_dollar(start: bytes) -> str | None:
    """H02's binary frames are decimal digits, of which NMEA's names and commas can't all be."""
    head = start[1:BINARY_HEAD_BYTES]
    if any(byte >> 4 > 9 or byte & 0x0F > 9 for byte in head):
        return "nmea"
    return "h02" if len(start) >= BINARY_HEAD_BYTES else None


def _of_number(start: bytes) -> str | None:
    """A keep-alive of GPS103 is a number and a semicolon; NMEA's sentences may have one before them."""
    found = _NUMBER.match(start)
    number = found[0] if found else b""
    if len(number) == len(start) <= MOST_BYTES and number.isdigit():
        return None
    return {b";": "gps103", b"$": "nmea", b"/": "nmea", b",": "nmea"}.get(number[-1:], "json")


class Auto:
    """A decoder (see framing/decoder.py) that becomes another once the first bytes have told which."""

    PROTOCOL: ClassVar[str] = ""

    def __init__(self, make: Callable[[str], Decoder]) -> None:
        self._make = make
        self._start = b""
        self._chosen: Decoder | None = None

    @property
    def chosen(self) -> Decoder | None:
        """What it became."""
        return self._chosen

    @property
    def waits_for_quiet(self) -> bool:
        return self._chosen is not None and self._chosen.waits_for_quiet

    @property
    def waits_for_more(self) -> bool:
        return self._chosen is not None and self._chosen.waits_for_more

    @property
    def is_mid_message(self) -> bool:
        return bool(self._start) if self._chosen is None else self._chosen.is_mid_message

    @property
    def held_bytes(self) -> int:
        return len(self._start) if self._chosen is None else self._chosen.held_bytes

    @property
    def wanted_bytes(self) -> int:
        return 0

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Take what was received."""
        if self._chosen is not None:
            return self._chosen.feed(data, arrival)
        self._start += data
        protocol = choose(self._start) if self._start else None
        if protocol is None:
            return []
        return self._become(protocol, arrival)

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Take note of silence."""
        return [] if self._chosen is None else self._chosen.quiet(arrival)

    def eof(self, arrival: Arrival) -> list[Message]:
        """Take note that nothing more will come."""
        messages = self._become("json", arrival) if self._chosen is None else []
        return [*messages, *self._chosen.eof(arrival)] if self._chosen else messages

    def _become(self, protocol: str, arrival: Arrival) -> list[Message]:
        self._chosen = self._make(protocol)
        start, self._start = self._start, b""
        return self._chosen.feed(start, arrival) if start else []
