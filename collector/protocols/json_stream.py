"""JSON over TCP: values one after another on a connection that may stay open for days.

A value followed by a newline, or by another value, is a *line* and is answered by one line:

    {"message": "Data received", "accepted": 2}
    {"message": "Invalid input data format.", "error": "record 1: latitude: must be …", "retry": false}

A value may span lines and arrive in any number of pieces. After a syntax error reading goes on behind the
next newline, or at the next line where a value was cut off at the end of one. A first value, good or bad, with
nothing behind it but silence or the end of sending is an *older message*: it is answered as the older service
does (telemetry/codec/legacy_fields.py), without a newline, and the connection is closed. Once a line was sent the older
form never applies.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from typing import ClassVar, NoReturn

from collector.framing.decoder import Message, Received, Rejected
from collector.protocols.json_replies import (
    NOT_AUTHORIZED,
    WELCOME,
    Answer,
    denied,
    is_hello,
    not_stored,
    read_records,
    reason,
    received,
    refused,
    rejected,
    take_token,
)
from telemetry.codec import legacy_fields
from telemetry.codec.json_decoder import NotUtf8, Truncated
from telemetry.codec.json_decoder import read as read_json
from telemetry.codec.record_parser import Arrival
from telemetry.codec.typed_decoder import Shapes
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.model.errors import RecordError, SyntaxFault
from telemetry.model.problems import Problem
from telemetry.model.record import Sent

QUICK_BYTES = 2**16
"""What may be read at once behind many lines that were all taken the quick way: 1 ms of such lines. A run of a device's
records that a read cuts in two is two entries for Redis and the worker: of 10 records a device an eighth fewer."""

MANY_BYTES = 2**13

LOOKED_AT_BYTES = 2**12
"""Of an unfinished value, so many bytes are looked at for errors at each silence. A longer one must have grown by an
eighth: a byte every tenth of a second behind a megabyte would cost a parse of it each."""

_BLANK = re.compile(rb"[ \t\r\n]*")
_BLANK_IN_LINE = re.compile(rb"[ \t\r]*")
_SCALAR_END = re.compile(rb"[\s,\[\]{}\"]")
_STRUCTURE = re.compile(rb'["\[\]{}]')
_NO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
"""Whole strings and what is between them: in one step, for that is most of what a batch consists of."""

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

    def end(self, data: bytearray, stop: int) -> int | None:
        """The place behind the value that starts `data`, or None if it goes on at `stop`."""
        if self._end is None:
            self._end = self._bracketed(data, stop) if _is_bracketed(data) else self._scalar(data, stop)
        return self._end

    def _scalar(self, data: bytearray, stop: int) -> int | None:
        found = _SCALAR_END.search(data, max(self.at, 1), stop)
        self.at = stop
        return found.start() if found else None

    def _bracketed(self, data: bytearray, stop: int) -> int | None:
        while self.at < stop:
            if self._depth and not self._in_string:
                self.at = _match_end(_NO_BRACKET, data, self.at, stop)
            found = (_STRING_END if self._in_string else _STRUCTURE).search(data, self.at, stop)
            if found is None:
                self.at = stop
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
    """The decoder of one connection (see framing/decoder.py).

    What it makes of a stream hangs on the bytes alone, never on how they are cut into pieces; `quiet` only
    ends what has no other end.
    """

    PROTOCOL: ClassVar[str] = "json"

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._buffer = bytearray()
        self._shapes = Shapes()
        self._was_quick = False  # the last that was taken were many lines, the quick way
        self._may_be_quick = True  # until the next bytes come: what is there was not to be read the quick way
        self._scanner = _Scanner()
        self._checked_bytes = 0  # of an unfinished value, how many were found to be good so far
        self._held: tuple[SyntaxFault, int] | None = None  # a fault, of which a newline will tell what it costs
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
        """Take what was received; returns the lines that are complete."""
        messages: list[Message] = []
        if not self._is_over:
            self._buffer += data
            self._may_be_quick, self._was_quick = True, False
            self._go_on(messages, arrival)
        return messages

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Silence: an older message is whole, and an unfinished value is looked at for errors."""
        messages: list[Message] = []
        while self.waits_for_quiet:
            fault = self._fault_so_far(is_quiet=True)
            if isinstance(fault, Truncated):
                break
            self._take_rest(fault, messages, arrival)
        return messages

    def eof(self, arrival: Arrival) -> list[Message]:
        """The end of sending: whatever waits is all there will be."""
        messages: list[Message] = []
        while not self._is_over and (self._buffer or not self._sent_line):
            self._take_rest(self._fault_so_far(), messages, arrival)
        return messages

    # Cutting the stream ------------------------------------------------------------------------------

    def _go_on(self, messages: list[Message], arrival: Arrival) -> None:
        while self._buffer and not self._is_over and self._step(messages, arrival):
            pass

    def _step(self, messages: list[Message], arrival: Arrival) -> bool:
        """Take one value, or look at a part of it; False if more bytes are needed."""
        if self._skips_line:
            return self._skip_line()
        if self._held is not None:
            return self._reject(*self._held, messages)
        if self._scanner.at == 0:
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
        if self._buffer[0] <= ord(" ") and (blank := _match_end(_BLANK, self._buffer, 0)):
            self._saw_blank = True
            del self._buffer[:blank]

    def _take_quick_lines(self, messages: list[Message], arrival: Arrival) -> bool:
        """All lines that are there, if each is a record of a known shape."""
        if not (self._may_be_quick and self._shapes.any and self._buffer[0] == ord("{")):
            return False
        end = self._buffer.rfind(b"\n", 0, self._max_bytes + 1)
        if end < 0:
            return False
        records = self._shapes.json_lines(self._buffer[:end], "tcp", "json", arrival)
        if records is None:
            self._may_be_quick = False
            return False
        self._drop(end + 1)
        if len(records) == 1:
            self._add_records(records, end, messages)
            return True
        self._sent_line = True
        self._was_quick = end >= MANY_BYTES
        messages.append(
            Received(
                records,
                end,
                _ONE_RECEIVED * len(records),
                partial(_lines_not_stored, len(records)),
                denied=_line_denied,
                parts=partial(_each_line, records, end),
            )
        )
        return True

    def _take_quick_line(self, messages: list[Message], arrival: Arrival) -> bool:
        """The usual case, one value on one line, without looking for its brackets."""
        newline = self._buffer.find(b"\n", 0, self._max_bytes + 1)
        if newline < 0 or self._buffer[0] not in b"{[":
            return False
        return self._take_known(newline, messages, arrival) or self._take_plain(newline, messages, arrival) is None

    def _take_value(self, messages: list[Message], arrival: Arrival) -> bool:
        """Look for the end of a value, up to the end of a line behind twice what is known to be good.

        If it doesn't end there, it may be wrong already. So all that is looked at, once or more, is a few times
        what is taken or refused, whatever is sent.
        """
        most = self._max_bytes + 1
        newline = self._buffer.find(b"\n", max(2 * self._checked_bytes, self._scanner.at - 1), most)
        stop = newline + 1 or min(len(self._buffer), most)
        end = self._scanner.end(self._buffer, stop)
        if end is not None and end < most:
            return self._take_unless_last(end, messages, arrival)
        if newline < 0 and stop < most:
            return False
        fault = self._look(min(stop, self._max_bytes))
        if fault is not None and fault.at is not None:
            return self._reject(fault, fault.at, messages)
        return self._refuse_length(messages) if stop == most else True

    def _take_unless_last(self, end: int, messages: list[Message], arrival: Arrival) -> bool:
        """Take a complete value as a line, once something stands behind it."""
        behind = _match_end(_BLANK_IN_LINE, self._buffer, end)
        is_last = behind == len(self._buffer)
        if is_last or not self._sent_line:
            del self._buffer[end + 1 : behind]  # of any number of blanks one stays
        return not is_last and self._take_line(end, messages, arrival)

    def _take_line(self, end: int, messages: list[Message], arrival: Arrival) -> bool:
        if self._take_known(end, messages, arrival):
            return True
        fault = self._take_plain(end, messages, arrival)
        return fault is None or self._reject(fault, end if fault.at is None else fault.at, messages)

    def _take_known(self, end: int, messages: list[Message], arrival: Arrival) -> bool:
        """Take a line whose records are of a known shape."""
        records = self._shapes.json(self._buffer[:end], "tcp", "json", arrival)
        if records is None or len(records) > self._max_records:
            return False
        self._drop(end)
        self._add_records(records, end, messages)
        return True

    def _take_plain(self, end: int, messages: list[Message], arrival: Arrival) -> SyntaxFault | None:
        """Take any line, unless it is no JSON."""
        try:
            value = read_json(self._buffer[:end], self._max_bytes)
        except SyntaxFault as fault:
            return fault
        self._drop(end)
        self._add_line(value, end, messages, arrival)
        return None

    def _take_rest(self, fault: SyntaxFault | None, messages: list[Message], arrival: Arrival) -> None:
        """Take what is there for all there will be: an older message, unless it is a line."""
        if fault is not None and fault.at is not None:
            self._reject(fault, fault.at, messages)
        elif self._sent_line:
            self._take_line(len(self._buffer), messages, arrival)
        if not self._sent_line:
            messages.append(self._older_message(arrival))
        self._go_on(messages, arrival)

    def _fault_so_far(self, is_quiet: bool = False) -> SyntaxFault | None:
        """What is wrong with a value that has not ended. None if it has, or if there is no telling yet."""
        if self._held is not None or not _is_bracketed(self._buffer):
            return None
        if self._scanner.end(self._buffer, len(self._buffer)) is not None:
            return None
        if is_quiet and not self._is_worth_a_look:
            return Truncated("cut short")
        return self._look(len(self._buffer))

    @property
    def _is_worth_a_look(self) -> bool:
        """Whether so much has come since an unfinished value was looked at that another look is no waste."""
        return len(self._buffer) <= LOOKED_AT_BYTES or len(self._buffer) >= self._checked_bytes * 9 // 8

    def _look(self, stop: int) -> SyntaxFault | None:
        self._checked_bytes = stop
        try:
            read_json(self._buffer[:stop], self._max_bytes)
        except SyntaxFault as fault:
            return fault
        return None

    def _reject(self, fault: SyntaxFault, at: int, messages: list[Message]) -> bool:
        """Answer a fault, and go on behind the next newline; or at the line that follows a value cut off.

        False while the fault stands in the first message and no newline behind it: it may be an older one.
        """
        line = self._buffer.rfind(b"\n", 0, at) + 1
        is_cut_off = line > 0 and self._buffer.startswith((b"{", b"["), at) and not self._buffer[line:at].strip()
        if not is_cut_off and not self._sent_line and self._buffer.find(b"\n", at, self._max_bytes + 1) < 0:
            self._held = fault, at
            return len(self._buffer) > self._max_bytes and self._refuse_length(messages)
        self._drop(line if is_cut_off else at)
        self._skips_line = not is_cut_off
        self._sent_line = True
        sentence = legacy_fields.NOT_PROCESSED if isinstance(fault, NotUtf8) else legacy_fields.BAD_JSON
        messages.append(_line_rejected(problems.INVALID_JSON, sentence, str(fault)))
        return True

    def _refuse_length(self, messages: list[Message]) -> bool:
        self._is_over = True
        self._drop(len(self._buffer))
        reason = f"message longer than {self._max_bytes} bytes"
        if self._sent_line:
            messages.append(
                _line_rejected(problems.BODY_TOO_LARGE, legacy_fields.NOT_PROCESSED, reason)._replace(last=True)
            )
        else:
            messages.append(_older_rejected(problems.BODY_TOO_LARGE, legacy_fields.NOT_PROCESSED, reason))
        return False

    def _drop(self, end: int) -> None:
        del self._buffer[:end]
        if self._scanner.at:
            self._scanner = _Scanner()
        self._checked_bytes = 0
        self._held = None

    # What a value means ------------------------------------------------------------------------------

    def _add_line(self, value: object, size_bytes: int, messages: list[Message], arrival: Arrival) -> None:
        self._sent_line = True
        try:
            token = take_token(value)
            if is_hello(value, token):
                messages.append(Received([], size_bytes, _WELCOME, _line_not_stored, token=token, denied=_line_denied))
                return
            records = read_records(value, self._max_records, "json", arrival)
        except RecordError as error:
            messages.append(Rejected(problems.INVALID_RECORD, reason(error), _line(refused(error))))
        else:
            self._shapes.learn(value if isinstance(value, list) else [value])
            self._add_records(records, size_bytes, messages, token)

    def _add_records(self, records: list[Sent], size_bytes: int, messages: list[Message], token: str = "") -> None:
        self._sent_line = True
        answer = _ONE_RECEIVED if len(records) == 1 else _line(received(len(records)))
        messages.append(Received(records, size_bytes, answer, _line_not_stored, token=token, denied=_line_denied))

    def _older_message(self, arrival: Arrival) -> Message:
        self._is_over = True
        text = bytes(self._buffer)
        self._drop(len(text))
        if not text and not self._saw_blank:
            return _older_rejected(None, legacy_fields.BAD_JSON, "nothing was sent")
        try:
            value = json.loads(text.decode(), parse_constant=_refuse_constant)
        except UnicodeDecodeError as error:
            return _older_rejected(problems.INVALID_JSON, legacy_fields.NOT_PROCESSED, f"not UTF-8: {error.reason}")
        except (ValueError, RecursionError) as error:
            return _older_rejected(problems.INVALID_JSON, legacy_fields.BAD_JSON, str(error))
        try:
            token = take_token(value)
        except RecordError as error:
            return _older_rejected(problems.INVALID_RECORD, legacy_fields.BAD_FORMAT, str(error))
        records = legacy_fields.check_message(value if isinstance(value, list) else [value], arrival)
        if isinstance(records, str):
            return _older_rejected(problems.INVALID_RECORD, records, records)
        echo = {"message": legacy_fields.RECEIVED, "data": value if isinstance(value, list) else [value]}
        try:
            answer = json.dumps(echo, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:  # a number that is not finite, or nested as deep as can be read
            return _older_rejected(problems.INVALID_RECORD, legacy_fields.BAD_FORMAT, str(error))
        return Received(records, len(text), answer, _older_not_stored, last=True, token=token, denied=_older_denied)


def _match_end(pattern: re.Pattern[bytes], data: bytearray, start: int, stop: int = sys.maxsize) -> int:
    found = pattern.match(data, start, stop)
    return found.end() if found else start


def _is_bracketed(data: bytearray) -> bool:
    return data.startswith((b"{", b"[", b'"'))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _line(answer: Answer) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _line_rejected(kind: Problem, sentence: str, why: str) -> Rejected:
    return Rejected(kind, why, _line(rejected(sentence, why)))


_ONE_RECEIVED = _line(received(1))
_WELCOME = _line(WELCOME)


def _line_not_stored(why: str) -> bytes:
    return _line(not_stored(why))


def _line_denied(why: Denied) -> bytes:
    return _line(denied(why))


def _each_line(records: list[Sent], size_bytes: int) -> list[Received]:
    """Lines of a record each, which were put together."""
    each_bytes = size_bytes // len(records)
    return [Received([one], each_bytes, _ONE_RECEIVED, _line_not_stored, denied=_line_denied) for one in records]


def _lines_not_stored(lines: int, why: str) -> bytes:
    return _line_not_stored(why) * lines


def _older_rejected(kind: Problem | None, sentence: str, reason: str) -> Rejected:
    return Rejected(kind, reason, json.dumps({"message": sentence}).encode(), last=True)


def _older_denied(why: Denied) -> bytes:
    return json.dumps(
        {"message": legacy_fields.NOT_PROCESSED if why.kind is problems.BUSY else NOT_AUTHORIZED}
    ).encode()


def _older_not_stored(_reason: str) -> bytes:
    return json.dumps({"message": legacy_fields.NOT_PROCESSED}).encode()
