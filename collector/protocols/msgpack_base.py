"""What the msgpack protocols have in common: silence means nothing, and behind bytes that can't be told apart is
nothing that could be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from collector.framing.decoder import Message, Rejected
from telemetry.codec.record_parser import Arrival


class Binary(ABC):
    """A decoder (see framing/decoder.py) of whatever `_take` cuts out of the buffer."""

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
        """Take what was received; returns the messages that are complete."""
        messages: list[Message] = []
        if not self._is_over:
            self._take(data, messages, arrival)
        return messages

    def quiet(self, _arrival: Arrival) -> list[Message]:
        """Silence means nothing here."""
        return []

    def eof(self, _arrival: Arrival) -> list[Message]:
        """The end of sending."""
        return [self._end(self.CUT_SHORT)] if self._buffer and not self._is_over else []

    def _end(self, why: str) -> Message:
        """The last message: nothing that follows can be told apart."""
        return self._over(self._malformed(why))

    def _over(self, message: Rejected) -> Message:
        self._is_over = True
        self._buffer.clear()
        return message._replace(last=True)

    @abstractmethod
    def _take(self, data: bytes | bytearray, messages: list[Message], arrival: Arrival) -> None:
        """Add bytes to the buffer and what is complete to the messages."""

    @abstractmethod
    def _malformed(self, why: str) -> Rejected:
        """The answer to bytes behind which nothing can be told apart."""
