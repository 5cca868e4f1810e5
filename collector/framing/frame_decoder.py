"""Common base of tracker decoders: splits a stream into frames and decodes each; an invalid frame affects only itself.

An invalid frame gets no answer, as these protocols have none, and is quarantined unchanged. A connection ends only if
the frames that follow cannot be separated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, tzinfo
from typing import ClassVar, NamedTuple

from msgspec.structs import replace

from collector.framing.decoder import Message, Received, Rejected
from telemetry.codec.record_parser import Arrival
from telemetry.hot_store.entry_codec import Aside
from telemetry.model import problems
from telemetry.model.errors import RecordError, SenderError
from telemetry.model.record import Sent


class Options(NamedTuple):
    """Settings of a listener for its devices.

    `timezone` is the time zone of devices that send local time; `speed_unit` is their unit if the protocol does not
    define it; empty = the protocol's usual one. `device_tag` is the tag with a line's device. `address` is the peer's,
    for protocols whose devices need not send an id. With `keep_frames` a frame is stored as hex in its first record.
    `answers_all` also answers messages that the protocol answers only for devices configured to wait.
    """

    max_bytes: int = 2**20
    transport: str = "tcp"
    timezone: tzinfo = UTC
    speed_unit: str = ""
    device_tag: str = ""
    address: str = ""
    keep_frames: bool = False
    answers_all: bool = False


PIECE_BYTES = 4_096
"""Bytes added to the buffer in one step, which limits the search for a frame's end."""


class FrameFault(SenderError):
    """A frame violates its protocol."""


class OutOfStep(FrameFault):
    """The start of the next frame cannot be found."""


class Cut(NamedTuple):
    """The next piece of a stream: its size, and the frame in it; no frame for junk or keep-alives."""

    size_bytes: int
    frame: bytes = b""


class Framed(ABC):
    """Decoder (see decoder.py) of one connection."""

    PROTOCOL: ClassVar[str]

    MAX_FRAME_BYTES = 2**16
    """Longer than any frame of the protocol: without a frame end in this size the stream is out of step."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device_id = ""  # as sent by the device on this connection
        self._max_bytes = min(self.MAX_FRAME_BYTES, options.max_bytes)
        self._buffer = bytearray()
        self._looked_bytes = 0  # searched bytes of an incomplete frame; 0 after a frame was cut
        self._is_over = False

    @property
    def waits_for_quiet(self) -> bool:
        return False

    @property
    def waits_for_more(self) -> bool:
        return False

    @property
    def is_mid_message(self) -> bool:
        return bool(self._buffer)

    @property
    def held_bytes(self) -> int:
        return len(self._buffer)

    @property
    def wanted_bytes(self) -> int:
        return 0

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Process received bytes; returns the complete messages."""
        messages: list[Message] = []
        for at in range(0, len(data), PIECE_BYTES):
            if self._is_over:
                break
            self._buffer += data[at : at + PIECE_BYTES]
            self._cut_frames(messages, arrival)
        return messages

    def _cut_frames(self, messages: list[Message], arrival: Arrival) -> None:
        """Add the messages of the complete frames in the buffer."""
        while self._buffer and not self._is_over:
            message, is_cut = self._next(arrival)
            if message is not None:
                messages.append(message)
            if not is_cut:
                break

    def datagram(self, data: bytes, arrival: Arrival) -> list[Message]:
        """Decode a datagram; needs a new decoder for each."""
        return [*self.feed(data, arrival), *self.eof(arrival)]

    def quiet(self, _arrival: Arrival) -> list[Message]:
        """Silence has no meaning."""
        return []

    def eof(self, arrival: Arrival) -> list[Message]:
        """The end of the stream, or of a datagram."""
        messages = self._ended(arrival)
        return [*messages, self._over("cut short")] if self._buffer else messages

    def _ended(self, arrival: Arrival) -> list[Message]:
        """The messages that are complete if nothing follows."""
        messages: list[Message] = []
        while self._buffer and (cut := self.end(self._buffer)) is not None:
            self._drop(cut.size_bytes)
            message = self._message(cut.frame, arrival)
            messages += [] if message is None else [message]
            self._cut_frames(messages, arrival)
        return messages

    def _next(self, arrival: Arrival) -> tuple[Message | None, bool]:
        """The message of the next frame, and whether there was a frame."""
        try:
            cut = self.cut(self._buffer)
            if self._is_too_long(cut):
                raise OutOfStep(f"no frame ends within {self._max_bytes} bytes")
        except OutOfStep as fault:
            return self._over(str(fault)), False
        if cut is None:
            return None, False
        self._drop(cut.size_bytes)
        message = self._message(cut.frame, arrival) if cut.frame else None
        if message is not None and message.last:
            self._is_over = True
            self._buffer.clear()
        return message, True

    def _drop(self, size_bytes: int) -> None:
        del self._buffer[:size_bytes]
        self._looked_bytes = 0

    def _is_too_long(self, cut: Cut | None) -> bool:
        """True if a frame is too long, in one piece or many; junk may have any length."""
        if cut is None:
            return len(self._buffer) > self._max_bytes
        return cut.size_bytes > self._max_bytes and bool(cut.frame)

    def _message(self, frame: bytes, arrival: Arrival) -> Message | None:
        try:
            message = self.read(frame, arrival)
            return with_frame(message, frame) if self.options.keep_frames and isinstance(message, Received) else message
        except FrameFault as fault:
            return self.rejected(problems.INVALID_FRAME, str(fault), frame)
        except RecordError as error:
            return self.rejected(problems.INVALID_RECORD, str(error), frame)

    def _over(self, why: str) -> Rejected:
        raw = bytes(self._buffer[: self._max_bytes + 1])
        self._is_over = True
        self._buffer.clear()
        return self.rejected(problems.INVALID_FRAME, why, raw)._replace(last=True)

    def rejected(self, kind: problems.Problem, why: str, frame: bytes) -> Rejected:
        """The result for an invalid frame: no answer."""
        return Rejected(kind, why, b"", aside=(Aside(self.device_id, why, frame),))

    @abstractmethod
    def cut(self, buffer: bytearray) -> Cut | None:
        """The next piece of a buffer that is not empty; None if it is incomplete. Raises `OutOfStep`.

        A call that returns a piece may read only a few bytes more than the piece has, because a sender may send any
        number of short ones. A call that returns None may store in `_looked_bytes` where the next one continues.
        """

    def end(self, _buffer: bytearray) -> Cut | None:
        """The frame that is complete if nothing follows; None if it is incomplete."""
        return None

    @abstractmethod
    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        """Decode a frame; None without a message. Raises `FrameFault` or `RecordError`."""


def received(records: list[Sent], frame: bytes, ack: bytes, aside: tuple[Aside, ...] = ()) -> Received:
    """A valid frame: `ack` is sent once its records are durable, nothing before."""
    return Received(records, len(frame), ack, _no_ack, aside=aside)


def with_frame(message: Received, frame: bytes) -> Received:
    """A message with its frame in the attributes of its first record."""
    if not message.records:
        return message
    first, *others = message.records
    text, raw = first.record.attributes, f'"frame":"{frame.hex()}"}}'
    kept = f"{text[:-1]},{raw}" if text else "{" + raw
    return message._replace(records=[replace(first, record=replace(first.record, attributes=kept)), *others])


def _no_ack(_why: str) -> bytes:
    return b""
