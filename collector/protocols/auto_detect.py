"""One port for all protocols, recognised by the first bytes of a connection."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from collector.framing.decoder import Decoder, Message
from telemetry.codec.record_parser import Arrival

MAX_NUMBER_BYTES = 32
"""Maximum length of a number at the start. A longer one is the start of no protocol but JSON."""

FRAME_HEAD_BYTES = 5
BINARY_HEAD_BYTES = 9
"""Head of a binary frame of H02: `$`, five bytes of an id, three of a time, two decimal digits in each byte."""

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
"""First bytes of a frame → protocol."""


def choose(start: bytes) -> str | None:
    """The protocol of a connection that begins with `start`; None if more bytes are needed."""
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
    """Distinguishes Whimbrel's frames, which begin with their length, from Teltonika's, with the length of an id."""
    if len(start) < FRAME_HEAD_BYTES:
        return None
    is_number = start[1] in (0x0E, 0x0F, 0x10, 0x11) and start[2:FRAME_HEAD_BYTES].isdigit()
    return "teltonika" if is_number else "frames"


def _of_dollar(start: bytes) -> str | None:
    """Distinguishes H02's binary frames, which are decimal digits, from NMEA's sentences, which are not."""
    head = start[1:BINARY_HEAD_BYTES]
    if any(byte >> 4 > 9 or byte & 0x0F > 9 for byte in head):
        return "nmea"
    return "h02" if len(start) >= BINARY_HEAD_BYTES else None


def _of_number(start: bytes) -> str | None:
    """Recognises a keep-alive of GPS103, a number and a semicolon, and NMEA's sentences after an id."""
    match = _NUMBER.match(start)
    number = match[0] if match else b""
    if len(number) == len(start) <= MAX_NUMBER_BYTES and number.isdigit():
        return None
    return {b";": "gps103", b"$": "nmea", b"/": "nmea", b",": "nmea"}.get(number[-1:], "json")


class Auto:
    """A decoder (see framing/decoder.py) that passes on to another, chosen by the first bytes."""

    PROTOCOL: ClassVar[str] = ""

    def __init__(self, make: Callable[[str], Decoder]) -> None:
        self._make = make
        self._start = b""
        self._chosen: Decoder | None = None

    @property
    def chosen(self) -> Decoder | None:
        """The chosen decoder; None before the first bytes."""
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
        """Process received bytes."""
        if self._chosen is not None:
            return self._chosen.feed(data, arrival)
        self._start += data
        protocol = choose(self._start) if self._start else None
        if protocol is None:
            return []
        return self._become(protocol, arrival)

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Process silence."""
        return [] if self._chosen is None else self._chosen.quiet(arrival)

    def eof(self, arrival: Arrival) -> list[Message]:
        """Process the end of the stream."""
        messages = self._become("json", arrival) if self._chosen is None else []
        return [*messages, *self._chosen.eof(arrival)] if self._chosen else messages

    def _become(self, protocol: str, arrival: Arrival) -> list[Message]:
        self._chosen = self._make(protocol)
        start, self._start = self._start, b""
        return self._chosen.feed(start, arrival) if start else []
