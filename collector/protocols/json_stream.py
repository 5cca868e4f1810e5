"""JSON over TCP: values one after another on a connection that may stay open for days.

A value followed by a newline, or by another value, is a *line*, which has a line as its answer (json_line.py).

A value may span lines and arrive in any number of pieces. After a syntax error, reading continues after the next
newline, or at the next line if a value was cut off at the end of one. A first value, valid or not, that only silence or
the end of the stream follows is a *legacy message* (legacy_message.py). After a line there is no legacy message.
"""

from __future__ import annotations

import re
from typing import ClassVar

from collector.framing.decoder import Message
from collector.protocols import json_line, legacy_message
from collector.protocols.json_line import LineReader
from collector.protocols.json_scanner import FirstValue, match_end
from telemetry.codec.json_decoder import Truncated
from telemetry.codec.json_decoder import read as read_json
from telemetry.codec.record_parser import Arrival
from telemetry.model.errors import SyntaxFault

QUICK_BYTES = 2**16
"""Maximum bytes of one read after many lines of known shapes. If two reads divide a run of one device's records, Redis
and the worker have two entries instead of one; so such reads are long."""

MANY_BYTES = 2**13

_BLANK = re.compile(rb"[ \t\r\n]*")
_BLANK_IN_LINE = re.compile(rb"[ \t\r]*")


class JsonStream:
    """The decoder of one connection (see framing/decoder.py).

    Its messages depend only on the bytes, never on the pieces in which they arrive; `quiet` only ends values that have
    no other end.
    """

    PROTOCOL: ClassVar[str] = "json"

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._value = FirstValue(self._buffer, max_bytes)
        self._lines = LineReader(max_records)
        self._was_quick = False  # the last message was many lines of known shapes
        self._may_be_quick = True  # false until the next bytes, once the present ones were not all of known shapes
        self._held: tuple[SyntaxFault, int] | None = None  # a fault that waits for a newline, which decides its answer
        self._skips_line = False
        self._saw_blank = False
        self._sent_line = False
        self._is_over = False

    @property
    def waits_for_quiet(self) -> bool:
        """Silence ends a legacy message, and is the time to check an unfinished value for errors."""
        first = not self._sent_line and (bool(self._buffer) or self._saw_blank)
        return not self._is_over and (first or len(self._buffer) > self._value.checked_bytes)

    @property
    def waits_for_more(self) -> bool:
        return False

    @property
    def is_mid_message(self) -> bool:
        return bool(self._buffer) or self._skips_line

    @property
    def held_bytes(self) -> int:
        return len(self._buffer)

    @property
    def wanted_bytes(self) -> int:
        return QUICK_BYTES if self._was_quick else 0

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Process received bytes; returns the lines that are complete."""
        messages: list[Message] = []
        if not self._is_over:
            self._buffer += data
            self._may_be_quick, self._was_quick = True, False
            self._go_on(messages, arrival)
        return messages

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Process silence: a legacy message is complete, and an unfinished value is checked for errors."""
        messages: list[Message] = []
        while self.waits_for_quiet:
            fault = self._unfinished_fault(is_quiet=True)
            if isinstance(fault, Truncated):
                break
            self._take_rest(fault, messages, arrival)
        return messages

    def eof(self, arrival: Arrival) -> list[Message]:
        """Process the end of the stream: the received bytes are all."""
        messages: list[Message] = []
        while not self._is_over and (self._buffer or not self._sent_line):
            self._take_rest(self._unfinished_fault(is_quiet=False), messages, arrival)
        return messages

    def _go_on(self, messages: list[Message], arrival: Arrival) -> None:
        while self._buffer and not self._is_over and self._step(messages, arrival):
            pass

    def _step(self, messages: list[Message], arrival: Arrival) -> bool:
        """Take one value, or scan a part of it; False if more bytes are needed."""
        if self._skips_line:
            return self._skip_line()
        if self._held is not None:
            return self._reject(*self._held, messages)
        if self._value.scanned_bytes == 0:
            self._skip_blank()
            if not self._buffer:
                return False
            if self._take_quick_lines(messages, arrival) or self._take_quick_line(messages, arrival):
                return True
        return self._take_value(messages, arrival)

    def _skip_line(self) -> bool:
        newline = self._buffer.find(b"\n")
        if newline < 0:
            self._buffer.clear()
            return False
        del self._buffer[: newline + 1]
        self._skips_line = False
        return True

    def _skip_blank(self) -> None:
        if self._buffer[0] <= ord(" ") and (blank := match_end(_BLANK, self._buffer, 0)):
            self._saw_blank = True
            del self._buffer[:blank]

    # Lines -------------------------------------------------------------------------------------------

    def _take_quick_lines(self, messages: list[Message], arrival: Arrival) -> bool:
        """Take all complete lines, if each is a record of a known shape."""
        if not (self._may_be_quick and self._lines.knows_shapes and self._buffer[0] == ord("{")):
            return False
        end = self._buffer.rfind(b"\n", 0, self._max_bytes + 1)
        if end < 0:
            return False
        message = self._lines.known_lines(self._buffer[:end], arrival)
        if message is None:
            self._may_be_quick = False
            return False
        self._was_quick = end >= MANY_BYTES and len(message.records) > 1
        self._add(message, end + 1, messages)
        return True

    def _take_quick_line(self, messages: list[Message], arrival: Arrival) -> bool:
        """Take the usual case, one value on one line, without a search for its brackets."""
        newline = self._buffer.find(b"\n", 0, self._max_bytes + 1)
        if newline < 0 or self._buffer[0] not in b"{[":
            return False
        return self._take_known(newline, messages, arrival) or self._take_plain(newline, messages, arrival) is None

    def _take_value(self, messages: list[Message], arrival: Arrival) -> bool:
        """Search the end of a value, up to the first end of a line after twice the part that is known to be valid.

        If the value does not end there, it may already be invalid, and is checked. So the bytes that are scanned and
        checked are at most a few times the bytes that are taken or rejected, whatever is sent.
        """
        most = self._max_bytes + 1
        newline = self._buffer.find(b"\n", max(2 * self._value.checked_bytes, self._value.scanned_bytes - 1), most)
        stop = newline + 1 or min(len(self._buffer), most)
        end = self._value.end(stop)
        if end is not None and end < most:
            return self._take_unless_last(end, messages, arrival)
        if newline < 0 and stop < most:
            return False
        fault = self._value.check(min(stop, self._max_bytes))
        if fault is not None and fault.at is not None:
            return self._reject(fault, fault.at, messages)
        return self._refuse_length(messages) if stop == most else True

    def _take_unless_last(self, end: int, messages: list[Message], arrival: Arrival) -> bool:
        """Take a complete value as a line, once a byte other than a blank follows it."""
        after = match_end(_BLANK_IN_LINE, self._buffer, end)
        is_last = after == len(self._buffer)
        if is_last or not self._sent_line:
            del self._buffer[end + 1 : after]  # of any number of blanks one stays
        return not is_last and self._take_line(end, messages, arrival)

    def _take_line(self, end: int, messages: list[Message], arrival: Arrival) -> bool:
        if self._take_known(end, messages, arrival):
            return True
        fault = self._take_plain(end, messages, arrival)
        return fault is None or self._reject(fault, end if fault.at is None else fault.at, messages)

    def _take_known(self, end: int, messages: list[Message], arrival: Arrival) -> bool:
        """Take a line whose records have a known shape."""
        message = self._lines.known(self._buffer[:end], arrival)
        if message is None:
            return False
        self._add(message, end, messages)
        return True

    def _take_plain(self, end: int, messages: list[Message], arrival: Arrival) -> SyntaxFault | None:
        """Take any line that is JSON; otherwise returns the fault."""
        try:
            value = read_json(self._buffer[:end], self._max_bytes)
        except SyntaxFault as fault:
            return fault
        self._add(self._lines.message(value, end, arrival), end, messages)
        return None

    def _add(self, message: Message, end: int, messages: list[Message]) -> None:
        self._drop(end)
        self._sent_line = True
        messages.append(message)

    # Ends and faults ---------------------------------------------------------------------------------

    def _take_rest(self, fault: SyntaxFault | None, messages: list[Message], arrival: Arrival) -> None:
        """Take the buffer as a legacy message, or as a line after other lines."""
        if fault is not None and fault.at is not None:
            self._reject(fault, fault.at, messages)
        elif self._sent_line:
            self._take_line(len(self._buffer), messages, arrival)
        if not self._sent_line:
            messages.append(self._legacy_message(arrival))
        self._go_on(messages, arrival)

    def _legacy_message(self, arrival: Arrival) -> Message:
        self._is_over = True
        text = bytes(self._buffer)
        self._drop(len(text))
        return legacy_message.read(text, arrival) if text or self._saw_blank else legacy_message.nothing_sent()

    def _unfinished_fault(self, is_quiet: bool) -> SyntaxFault | None:
        return None if self._held is not None else self._value.unfinished_fault(is_quiet)

    def _reject(self, fault: SyntaxFault, at: int, messages: list[Message]) -> bool:
        """Answer a fault, and continue after the next newline; or at the line that follows a value cut off.

        False while the fault is in the first message and no newline follows it: it may be a legacy message.
        """
        line = self._buffer.rfind(b"\n", 0, at) + 1
        is_cut_off = line > 0 and self._buffer.startswith((b"{", b"["), at) and not self._buffer[line:at].strip()
        if not is_cut_off and not self._sent_line and self._buffer.find(b"\n", at, self._max_bytes + 1) < 0:
            self._held = fault, at
            return len(self._buffer) > self._max_bytes and self._refuse_length(messages)
        self._add(json_line.not_json(fault), line if is_cut_off else at, messages)
        self._skips_line = not is_cut_off
        return True

    def _refuse_length(self, messages: list[Message]) -> bool:
        self._is_over = True
        self._drop(len(self._buffer))
        why = f"message longer than {self._max_bytes} bytes"
        messages.append(json_line.too_long(why) if self._sent_line else legacy_message.too_long(why))
        return False

    def _drop(self, end: int) -> None:
        del self._buffer[:end]
        self._value.begin()
        self._held = None
