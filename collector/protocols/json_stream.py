"""JSON over TCP: values one after another on a connection that may stay open for days.

A value followed by a newline, or by another value, is a *line* and is answered by one line:

    {"message": "Data received", "accepted": 2}
    {"message": "Invalid input data format.", "error": "record 1: latitude: must be …", "retry": false}

A value may span lines and arrive in any number of pieces. After a syntax error reading goes on behind the
next newline. A complete first value with nothing behind it but silence or the end of sending is an *older
message*: it is answered as the older service does (telemetry/older.py), without a newline, and the
connection is closed. Once a line was sent the older form never applies.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from collector.protocols.contract import Message, Received, Rejected
from telemetry import older
from telemetry.errors import RecordError, SyntaxFault
from telemetry.fields import Arrival, read
from telemetry.json_text import NotUtf8, Truncated
from telemetry.json_text import read as read_json
from telemetry.record import Sent

_BLANK = re.compile(rb"[ \t\r\n]*")
_BLANK_IN_LINE = re.compile(rb"[ \t\r]*")
_SCALAR_END = re.compile(rb"[\s,\[\]{}\"]")
_STRUCTURE = re.compile(rb'["\[\]{}]')
_STRING_END = re.compile(rb'["\\]')


class _Scanner:
    """Finds where a JSON value ends, looking at each byte once however it is cut into pieces.

    It counts brackets and knows strings; whether what lies between is JSON is the parser's business.
    """

    def __init__(self) -> None:
        self.at = 0
        self._end: int | None = None
        self._depth = 0
        self._in_string = False

    def end(self, data: bytearray) -> int | None:
        """The place behind the value that starts `data`, or None if it goes on."""
        if self._end is None:
            self._end = self._bracketed(data) if data[0] in b'{["' else self._scalar(data)
        return self._end

    def _scalar(self, data: bytearray) -> int | None:
        found = _SCALAR_END.search(data, max(self.at, 1))
        self.at = len(data)
        return found.start() if found else None

    def _bracketed(self, data: bytearray) -> int | None:
        while self.at < len(data):
            found = (_STRING_END if self._in_string else _STRUCTURE).search(data, self.at)
            if found is None:
                self.at = len(data)
                return None
            self.at = found.end()
            if self._closes(found[0]):
                return self.at
            if found[0] == b"\\":
                self.at += 1
        return None

    def _closes(self, mark: bytes) -> bool:
        if mark == b'"':
            self._in_string = not self._in_string
            return self._depth == 0 and not self._in_string
        if mark == b"\\":
            return False
        self._depth += 1 if mark in b"{[" else -1
        return self._depth <= 0


class JsonStream:
    """The decoder of one connection (see contract.py)."""

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._buffer = bytearray()
        self._scanner = _Scanner()
        self._checked_bytes = 0  # of an unfinished value, how many were found to be good so far
        self._skips_line = False
        self._saw_blank = False
        self._sent_line = False
        self._is_over = False

    @property
    def waits_for_quiet(self) -> bool:
        """Silence ends an older message, and makes an unfinished value worth a look for errors."""
        first = not self._sent_line and (bool(self._buffer) or self._saw_blank)
        return not self._is_over and (first or len(self._buffer) > self._checked_bytes)

    @property
    def is_mid_message(self) -> bool:
        return bool(self._buffer) or self._skips_line

    def feed(self, data: bytes, arrival: Arrival) -> list[Message]:
        """Take what was received; returns the lines that are complete."""
        if self._is_over:
            return []
        self._buffer += data
        messages: list[Message] = []
        while not self._is_over and self._goes_on(messages, arrival):
            pass
        if not self._is_over and len(self._buffer) > self._max_bytes:
            messages.append(self._too_long())
        return messages

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Silence: an older message is whole, and an unfinished value is looked at for errors."""
        if self._is_over or not self.waits_for_quiet:
            return []
        if not self._sent_line and not self._is_unfinished():
            return [self._older_message(arrival)]
        messages: list[Message] = []
        if self._sent_line and self._buffer and not self._is_unfinished():
            messages.append(self._take_line(len(self._buffer), arrival))
        else:
            self._look_for_error(messages)
        return messages

    def eof(self, arrival: Arrival) -> list[Message]:
        """The end of sending: whatever waits is all there will be."""
        if self._is_over:
            return []
        if not self._sent_line:
            return [self._older_message(arrival)]
        if self._buffer and not self._skips_line:
            return [self._take_line(len(self._buffer), arrival)]
        return []

    # Cutting the stream ------------------------------------------------------------------------------

    def _goes_on(self, messages: list[Message], arrival: Arrival) -> bool:
        """Do one step; False if more bytes are needed."""
        if self._skips_line:
            return self._skip_line()
        if self._scanner.at == 0:
            self._skip_blank()
            if self._take_quick_line(messages, arrival):
                return True
        if not self._buffer:
            return False
        end = self._scanner.end(self._buffer)
        if end is None:
            doubled = len(self._buffer) >= 2 * self._checked_bytes
            return doubled and b"\n" in self._buffer and self._look_for_error(messages)
        if _match_end(_BLANK_IN_LINE, self._buffer, end) == len(self._buffer):
            return False
        messages.append(self._take_line(end, arrival))
        return True

    def _skip_blank(self) -> None:
        blank = _match_end(_BLANK, self._buffer, 0)
        if blank:
            self._saw_blank = True
            del self._buffer[:blank]

    def _take_quick_line(self, messages: list[Message], arrival: Arrival) -> bool:
        """The usual case, one value on one line, without looking for its brackets."""
        newline = self._buffer.find(b"\n")
        if newline < 0 or self._buffer[0] not in b"{[":
            return False
        try:
            value = read_json(self._buffer[:newline], self._max_bytes)
        except SyntaxFault:
            return False
        self._sent_line = True
        messages.append(self._line_of(value, len(self._drop(newline)), arrival))
        return True

    def _skip_line(self) -> bool:
        newline = self._buffer.find(b"\n")
        if newline < 0:
            self._buffer.clear()
            return False
        del self._buffer[: newline + 1]
        self._skips_line = False
        return True

    def _is_unfinished(self) -> bool:
        """Whether the buffer is the beginning of a value that may still become a good one."""
        if not self._buffer or self._buffer[0] not in b'{["' or self._scanner.end(self._buffer) is not None:
            return False
        try:
            read_json(self._buffer, self._max_bytes)
        except Truncated:
            return True
        except SyntaxFault:
            pass
        return False

    def _look_for_error(self, messages: list[Message]) -> bool:
        """See whether an unfinished value is wrong already; then reject it and go on behind its line.

        Looked at only when it has doubled, or at silence: all looks together cost twice its length.
        """
        self._checked_bytes = len(self._buffer)
        try:
            read_json(self._buffer, self._max_bytes)
        except Truncated:
            return False
        except SyntaxFault as fault:
            at = len(self._buffer) if fault.at is None else fault.at
            line = self._buffer.rfind(b"\n", 0, at) + 1
            if line and not self._buffer[line:at].strip():
                self._drop(line)  # the value was cut off at the end of a line: the next one is a fresh start
            else:
                self._drop(at)
                self._skips_line = True
            self._sent_line = True
            messages.append(_line_rejected(older.BAD_JSON, str(fault)))
            return True
        return False

    def _drop(self, end: int) -> bytes:
        value = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._scanner = _Scanner()
        self._checked_bytes = 0
        return value

    # What a value means ------------------------------------------------------------------------------

    def _take_line(self, end: int, arrival: Arrival) -> Message:
        self._sent_line = True
        text = self._drop(end)
        try:
            return self._line_of(read_json(text, self._max_bytes), len(text), arrival)
        except NotUtf8 as fault:
            self._skips_line = True
            return _line_rejected(older.NOT_PROCESSED, str(fault))
        except SyntaxFault as fault:
            self._skips_line = True
            return _line_rejected(older.BAD_JSON, str(fault))

    def _line_of(self, value: object, size_bytes: int, arrival: Arrival) -> Message:
        try:
            records = self._records(value, arrival)
        except RecordError as error:
            return _line_refused(error)
        answer = _line({"message": older.RECEIVED, "accepted": len(records)})
        return Received(records, size_bytes, answer, _line_not_stored)

    def _records(self, value: object, arrival: Arrival) -> list[Sent]:
        values = value if isinstance(value, list) else [value]
        if len(values) > self._max_records:
            raise RecordError(None, None, f"{len(values)} records in one message, more than {self._max_records}")
        records = []
        for index, one in enumerate(values):
            try:
                records.append(read(one, "tcp", "json", arrival))
            except RecordError as error:
                error.index = index
                raise
        return records

    def _older_message(self, arrival: Arrival) -> Message:
        self._is_over = True
        text = self._drop(len(self._buffer))
        try:
            value = json.loads(text.decode(), parse_constant=_refuse_constant)
        except UnicodeDecodeError as error:
            return _older_rejected(older.NOT_PROCESSED, f"not UTF-8: {error.reason}")
        except (ValueError, RecursionError) as error:
            return _older_rejected(older.BAD_JSON, str(error))
        records = older.check_message(value if isinstance(value, list) else [value], arrival)
        if isinstance(records, str):
            return _older_rejected(records, records)
        echo = {"message": older.RECEIVED, "data": value if isinstance(value, list) else [value]}
        try:
            answer = json.dumps(echo, allow_nan=False).encode()
        except ValueError:
            return _older_rejected(older.BAD_FORMAT, "a number that is not finite")
        return Received(records, len(text), answer, _older_not_stored, last=True)

    def _too_long(self) -> Message:
        self._is_over = True
        self._drop(len(self._buffer))
        reason = f"message longer than {self._max_bytes} bytes"
        if self._sent_line:
            return _line_rejected(older.NOT_PROCESSED, reason)._replace(last=True)
        return _older_rejected(older.NOT_PROCESSED, reason)


def _match_end(pattern: re.Pattern[bytes], data: bytearray, start: int) -> int:
    found = pattern.match(data, start)
    return found.end() if found else start


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _line(answer: dict[str, object]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _line_rejected(sentence: str, reason: str) -> Rejected:
    return Rejected(reason, _line({"message": sentence, "error": reason, "retry": False}))


def _line_refused(error: RecordError) -> Rejected:
    reason = str(error) if error.index is None else f"record {error.index}: {error}"
    required = error.field == "device_id" and error.value is None and error.reason == "required"
    return _line_rejected(older.MISSING + "device_id" if required else older.BAD_FORMAT, reason)


def _line_not_stored(reason: str) -> bytes:
    return _line({"message": older.NOT_PROCESSED, "error": reason, "retry": True})


def _older_rejected(sentence: str, reason: str) -> Rejected:
    return Rejected(reason, json.dumps({"message": sentence}).encode(), last=True)


def _older_not_stored(_reason: str) -> bytes:
    return json.dumps({"message": older.NOT_PROCESSED}).encode()
