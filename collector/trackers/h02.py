"""H02: text frames `*HQ,<id>,<command>,…#` and binary frames that begin with `$`, in any order; times are UTC.

A binary frame does not contain its length (32 or 45 bytes are usual). The first one on a connection ends at the next
frame or at silence; later ones have the same length.

The contents of frames are decoded in h02_fields.py. The reply to `V1` and `NBR` confirms that they were stored; the
reply to a heartbeat repeats its head. Other frames have a reply only with the setting `answers_all`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from collector.framing.decoder import Message
from collector.framing.frame_decoder import Cut, Framed, FrameFault, Options, received
from collector.trackers import h02_fields
from collector.trackers.position import sent
from collector.trackers.text_fields import ascii_lines, unusable
from telemetry.codec.record_parser import Arrival
from telemetry.model.errors import RecordError

SOURCE = "h02"

MIN_BINARY_BYTES = 32
OTHER_BINARY_BYTES = 45
ID_BYTES, LONG_ID_BYTES = 5, 8
"""Possible sizes of the id in a binary frame. The position of the date after it shows which applies."""

_MARKER = re.compile(rb"[*$X]")
_TEXT_HEAD = re.compile(rb"\*[A-Za-z]{2},")
_TEXT_HEAD_BYTES = 4
_BINARY_HEAD_BYTES = 15
_TEXT_FRAME = re.compile(r"\*[A-Za-z]{2},([0-9A-Za-z]{0,20}),([^,#]*)(?:,([^#]*))?#")


class H02(Framed):
    """The decoder of one connection."""

    PROTOCOL: ClassVar[str] = "h02"

    MAX_FRAME_BYTES = 4096

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._binary_bytes = 0  # length of this connection's binary frames; 0 = not known yet

    @property
    def waits_for_quiet(self) -> bool:
        return not self._binary_bytes and self._buffer.startswith(b"$") and len(self._buffer) >= MIN_BINARY_BYTES

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Silence ends a binary frame of unknown length."""
        return self._ended(arrival) if self.waits_for_quiet else []

    def cut(self, buffer: bytearray) -> Cut | None:
        marker = _MARKER.search(buffer)
        if marker is None or marker.start():
            return self._junk(buffer[: marker.start()] if marker else buffer)
        if buffer[0] == ord("$"):
            return self._cut_binary(buffer)
        if buffer[0] == ord("X"):
            after = _TEXT_HEAD.search(buffer, 1, OTHER_BINARY_BYTES + _TEXT_HEAD_BYTES - 1)
            size = min(OTHER_BINARY_BYTES, after.start() if after else OTHER_BINARY_BYTES)
            return Cut(size, bytes(buffer[:size])) if len(buffer) >= size else None
        size = buffer.find(b"#") + 1
        if after := _TEXT_HEAD.search(buffer, 1, size or len(buffer)):
            size = after.start()  # the end of the frame was lost
        return Cut(size, bytes(buffer[:size])) if size else None

    def _cut_binary(self, buffer: bytearray) -> Cut | None:
        size = self._binary_bytes
        if not size:
            size, self._looked_bytes = _binary_size(buffer, max(MIN_BINARY_BYTES, self._looked_bytes))
        if not size or len(buffer) < size:
            return None
        self._binary_bytes = size
        return Cut(size, bytes(buffer[:size]))

    def _junk(self, junk: bytearray) -> Cut:
        if junk.strip():
            self._binary_bytes = 0  # the rest of a binary frame: frames have become longer
        return Cut(len(junk))

    def end(self, buffer: bytearray) -> Cut | None:
        size = len(buffer)
        if buffer[0] != ord("$") or size < MIN_BINARY_BYTES:
            return None
        self._binary_bytes = size
        return Cut(size, bytes(buffer))

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        if frame.startswith(b"$"):
            id_bytes = _id_bytes(frame)
            self.device_id = _digits(frame[1 : 1 + id_bytes].hex()[:15])
            read = partial(h02_fields.binary, frame[1 + id_bytes :].hex())
            ack = self._confirmed(arrival)
        else:
            text = _TEXT_FRAME.fullmatch(ascii_lines(frame))
            if text is None or not (text[1] or self.device_id):
                raise FrameFault("is not an H02 frame")
            self.device_id, command = text[1] or self.device_id, text[2].strip()
            if not command:
                return received([], frame, b"")  # a keep-alive
            read = partial(h02_fields.text, command, (text[3] or "").split(","))
            ack = self._ack(command, text[0], arrival)
        try:
            at_us, attributes, position = read(self.options, arrival)
            record = sent(self.device_id, SOURCE, self.options, arrival, at_us, attributes, position)
        except RecordError as error:
            return unusable(self.device_id, error, frame, ack)
        return received([record], frame, ack)

    # Answers -----------------------------------------------------------------------------------------

    def _ack(self, command: str, frame: str, arrival: Arrival) -> bytes:
        if command in ("V0", "HTBT"):
            return f"{frame[:3]},{self.device_id},{command}#".encode()
        if command in ("V1", "NBR"):
            return f"*HQ,{self.device_id},V4,{command},{_utc(arrival):%Y%m%d%H%M%S}#".encode()
        return self._confirmed(arrival)

    def _confirmed(self, arrival: Arrival) -> bytes:
        """The reply to other frames, with the setting `answers_all`."""
        return f"*HQ,{self.device_id},R12,{_utc(arrival):%H%M%S}#".encode() if self.options.answers_all else b""


def _digits(device_id: str) -> str:
    if not device_id.isdigit():
        raise FrameFault("has an id with nibbles above 9")
    return device_id


def _utc(arrival: Arrival) -> datetime:
    return datetime.fromtimestamp(arrival.now_us // 1_000_000, UTC)


# Where binary frames end -----------------------------------------------------------------------------


def _binary_size(buffer: bytearray, start: int) -> tuple[int, int]:
    """Length of the first frame, up to the next head from `start` on, or 0 if there is none; and where to continue the
    search."""
    for marker in _MARKER.finditer(buffer, start):
        at = marker.start()
        is_head = _is_head(buffer, at)
        if is_head is None:
            return 0, at
        if is_head:
            return at, at
    return 0, max(start, len(buffer))


def _is_head(buffer: bytearray, at: int) -> bool | None:
    """True if a frame begins at `at`; None if more bytes are needed."""
    if buffer[at] == ord("$"):
        if len(buffer) < at + _BINARY_HEAD_BYTES:
            return None
        return _is_moment(buffer[at + 6 : at + 12]) or _is_moment(buffer[at + 9 : at + 15])
    if buffer[at] == ord("*"):
        if len(buffer) < at + _TEXT_HEAD_BYTES:
            return None
        return _TEXT_HEAD.match(buffer, at) is not None
    return False


def _id_bytes(frame: bytes) -> int:
    """Size of the id in a binary frame, from the position of the time and date after it."""
    is_long = not _is_moment(frame[6:12]) and _is_moment(frame[9:15])
    return LONG_ID_BYTES if is_long else ID_BYTES


def _is_moment(data: bytes | bytearray) -> bool:
    """True if these bytes can be HHMMSS and DDMMYY."""
    digits = data.hex()
    if not digits.isdigit():
        return False
    hour, minute, second, day, month = (int(digits[at : at + 2]) for at in range(0, 10, 2))
    return hour < 24 and minute < 60 and second < 60 and 1 <= day <= 31 and 1 <= month <= 12
