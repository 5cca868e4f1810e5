"""One port for several protocols, recognised by the first byte of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from collector.framing.decoder import Decoder, Message
from telemetry.codec.record_parser import Arrival


class FirstByte:
    """A decoder that passes on to another, chosen by the first byte. Without any byte, `default` is the first byte."""

    PROTOCOL: ClassVar[str] = ""

    def __init__(self, choose: Callable[[int], Decoder], default: int) -> None:
        self._choose = choose
        self._default = default
        self._chosen: Decoder | None = None

    @property
    def chosen(self) -> Decoder | None:
        """The chosen decoder; None before the first byte."""
        return self._chosen

    @property
    def waits_for_quiet(self) -> bool:
        return self._chosen is not None and self._chosen.waits_for_quiet

    @property
    def waits_for_more(self) -> bool:
        return self._chosen is not None and self._chosen.waits_for_more

    @property
    def is_mid_message(self) -> bool:
        return self._chosen is not None and self._chosen.is_mid_message

    @property
    def held_bytes(self) -> int:
        return 0 if self._chosen is None else self._chosen.held_bytes

    @property
    def wanted_bytes(self) -> int:
        return 0 if self._chosen is None else self._chosen.wanted_bytes

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Process received bytes."""
        if self._chosen is None:
            if not data:
                return []
            self._chosen = self._choose(data[0])
        return self._chosen.feed(data, arrival)

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Process silence."""
        return [] if self._chosen is None else self._chosen.quiet(arrival)

    def eof(self, arrival: Arrival) -> list[Message]:
        """Process the end of the stream."""
        return (self._chosen or self._choose(self._default)).eof(arrival)
