"""Base class of the msgpack decoders. Silence has no meaning, and after malformed bytes the next message cannot be
found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from collector.framing.decoder import Message, Rejected
from telemetry.codec.record_parser import Arrival


class Binary(ABC):
    """A decoder (see framing/decoder.py). `_take` of the subclass cuts messages out of the buffer."""

    PROTOCOL: ClassVar[str]

    CUT_SHORT = "cut short"

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._buffer = bytearray()
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
        """Process received bytes; returns the messages that are complete."""
        messages: list[Message] = []
        if not self._is_over:
            self._take(data, messages, arrival)
        return messages

    def quiet(self, _arrival: Arrival) -> list[Message]:
        """Silence has no meaning in these protocols."""
        return []

    def eof(self, _arrival: Arrival) -> list[Message]:
        """Process the end of the stream."""
        return [self._end(self.CUT_SHORT)] if self._buffer and not self._is_over else []

    def _end(self, why: str) -> Message:
        """The last message of the connection, for malformed bytes."""
        return self._over(self._malformed(why))

    def _over(self, message: Rejected) -> Message:
        self._is_over = True
        self._buffer.clear()
        return message._replace(last=True)

    @abstractmethod
    def _take(self, data: bytes | bytearray, messages: list[Message], arrival: Arrival) -> None:
        """Add bytes to the buffer, and complete messages to `messages`."""

    @abstractmethod
    def _malformed(self, why: str) -> Rejected:
        """The rejection of malformed bytes."""
