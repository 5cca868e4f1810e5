"""What the protocols of trackers have in common: a stream is cut into frames, each is read, and a bad one costs itself.

A frame that can't be used gets no answer, as these protocols have none for it, and is set aside as it came. Only a
stream of which nothing further can be told apart ends its connection.
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
    """What a listener says of its devices.

    `timezone` is that of devices which tell the time of day where they are; `speed_unit` is theirs where the
    protocol leaves it open, or empty: the protocol's usual one. `device_tag` says which tag of a line names its device.
    `address` is the peer's, the last resort of a protocol whose devices need not name themselves. With
    `keep_frames` a frame is kept as hex in its first record. `answers_all` answers also
    what the protocol leaves unanswered unless a device is set up to wait for it.
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
"""Bytes taken into the buffer at once: a frame's end is looked for in no more than a frame may have and so many."""


class FrameFault(SenderError):
    """A frame is not what its protocol says."""


class OutOfStep(FrameFault):
    """Where the next frame begins can't be told."""


class Cut(NamedTuple):
    """The next piece of a stream: how many bytes go, and which of them are a frame; none of junk, or of a mere sign."""

    size_bytes: int
    frame: bytes = b""


class Framed(ABC):
    """A decoder (see decoder.py) of one connection."""

    PROTOCOL: ClassVar[str]

    MAX_FRAME_BYTES = 2**16
    """Longer than any frame of the protocol: who sends so much without an end is out of step."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device_id = ""  # as the device named itself on this connection
        self._max_bytes = min(self.MAX_FRAME_BYTES, options.max_bytes)
        self._buffer = bytearray()
        self._looked_bytes = 0  # of an unfinished frame, in how many `cut` found no end; 0 again once one is cut
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
        """Take what was received; returns the messages that are complete."""
        messages: list[Message] = []
        for at in range(0, len(data), PIECE_BYTES):
            if self._is_over:
                break
            self._buffer += data[at : at + PIECE_BYTES]
            self._cut_frames(messages, arrival)
        return messages

    def _cut_frames(self, messages: list[Message], arrival: Arrival) -> None:
        """Add what the buffer's whole frames say."""
        while self._buffer and not self._is_over:
            message, is_cut = self._next(arrival)
            if message is not None:
                messages.append(message)
            if not is_cut:
                break

    def datagram(self, data: bytes, arrival: Arrival) -> list[Message]:
        """A datagram, of a decoder made for it."""
        return [*self.feed(data, arrival), *self.eof(arrival)]

    def quiet(self, _arrival: Arrival) -> list[Message]:
        """Silence means nothing here."""
        return []

    def eof(self, arrival: Arrival) -> list[Message]:
        """The end of sending, or of a datagram that a decoder of its own was fed with."""
        messages = self._ended(arrival)
        return [*messages, self._over("cut short")] if self._buffer else messages

    def _ended(self, arrival: Arrival) -> list[Message]:
        """What is whole if nothing follows."""
        messages: list[Message] = []
        while self._buffer and (cut := self.end(self._buffer)) is not None:
            self._drop(cut.size_bytes)
            message = self._message(cut.frame, arrival)
            messages += [] if message is None else [message]
            self._cut_frames(messages, arrival)
        return messages

    def _next(self, arrival: Arrival) -> tuple[Message | None, bool]:
        """What the next frame says, and whether there was one."""
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
        """Whether it came in one piece or in many; junk may be of any length."""
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
        """A frame that can't be used: no answer."""
        return Rejected(kind, why, b"", aside=(Aside(self.device_id, why, frame),))

    @abstractmethod
    def cut(self, buffer: bytearray) -> Cut | None:
        """The next piece of a buffer that is not empty; None if its end has not come. Raises `OutOfStep`.

        A call that returns a piece may look at few more bytes than the piece has, for a sender may send any number of
        short ones. A call that returns None may leave in `_looked_bytes` where the next one begins to look.
        """

    def end(self, _buffer: bytearray) -> Cut | None:
        """The frame that `cut` waits for if nothing follows; None if it is not whole then."""
        return None

    @abstractmethod
    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        """What a frame says; None if nothing. Raises `FrameFault` or `RecordError`."""


def received(records: list[Sent], frame: bytes, ack: bytes, aside: tuple[Aside, ...] = ()) -> Received:
    """A good frame: `ack` is what the device hears once its records are safe; until then it hears nothing."""
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
