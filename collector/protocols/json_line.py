"""Messages of JSON lines: the records of a line, and its answer.

{"message": "Data received", "accepted": 2}
{"message": "Invalid input data format.", "error": "record 1: latitude: must be …", "retry": false}
"""

from __future__ import annotations

import json
from functools import partial

from collector.framing.decoder import Message, Received, Rejected
from collector.protocols.json_replies import (
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
from telemetry.codec.json_decoder import NotUtf8
from telemetry.codec.record_parser import Arrival
from telemetry.codec.typed_decoder import Shapes
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.model.errors import RecordError, SyntaxFault
from telemetry.model.problems import Problem
from telemetry.model.record import Sent


class LineReader:
    """Reads the lines of one connection. It learns the shapes of their records, and decodes known shapes faster."""

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._shapes = Shapes()

    @property
    def knows_shapes(self) -> bool:
        """True if `known_lines` may succeed."""
        return self._shapes.any

    def known_lines(self, data: bytearray, arrival: Arrival) -> Received | None:
        """The message of some lines, if each is one record of a known shape."""
        records = self._shapes.json_lines(data, "tcp", "json", arrival)
        if records is None or len(records) == 1:
            return None if records is None else _received(records, len(data))
        return Received(
            records,
            len(data),
            _ONE_RECEIVED * len(records),
            partial(_lines_not_stored, len(records)),
            denied=_denied,
            parts=partial(_each_line, records, len(data)),
        )

    def known(self, data: bytearray, arrival: Arrival) -> Received | None:
        """The message of one line whose records have a known shape."""
        records = self._shapes.json(data, "tcp", "json", arrival)
        if records is None or len(records) > self._max_records:
            return None
        return _received(records, len(data))

    def message(self, value: object, size_bytes: int, arrival: Arrival) -> Message:
        """The message of a line with this value."""
        try:
            token = take_token(value)
            if is_hello(value, token):
                return Received([], size_bytes, _WELCOME, _not_stored, token=token, denied=_denied)
            records = read_records(value, self._max_records, "json", arrival)
        except RecordError as error:
            return Rejected(problems.INVALID_RECORD, reason(error), _line(refused(error)))
        self._shapes.learn(value if isinstance(value, list) else [value])
        return _received(records, size_bytes, token)


def not_json(fault: SyntaxFault) -> Rejected:
    """The message of a line with a syntax error."""
    sentence = legacy_fields.NOT_PROCESSED if isinstance(fault, NotUtf8) else legacy_fields.BAD_JSON
    return _rejected(problems.INVALID_JSON, sentence, str(fault))


def too_long(why: str) -> Rejected:
    """The last message of a connection: a line that is longer than allowed."""
    return _rejected(problems.BODY_TOO_LARGE, legacy_fields.NOT_PROCESSED, why)._replace(last=True)


def _received(records: list[Sent], size_bytes: int, token: str = "") -> Received:
    answer = _ONE_RECEIVED if len(records) == 1 else _line(received(len(records)))
    return Received(records, size_bytes, answer, _not_stored, token=token, denied=_denied)


def _rejected(kind: Problem, sentence: str, why: str) -> Rejected:
    return Rejected(kind, why, _line(rejected(sentence, why)))


def _line(answer: Answer) -> bytes:
    return json.dumps(answer).encode() + b"\n"


_ONE_RECEIVED = _line(received(1))
_WELCOME = _line(WELCOME)


def _not_stored(why: str) -> bytes:
    return _line(not_stored(why))


def _denied(why: Denied) -> bytes:
    return _line(denied(why))


def _each_line(records: list[Sent], size_bytes: int) -> list[Received]:
    """The messages of lines that were read together, each with one record."""
    each_bytes = size_bytes // len(records)
    return [Received([one], each_bytes, _ONE_RECEIVED, _not_stored, denied=_denied) for one in records]


def _lines_not_stored(lines: int, why: str) -> bytes:
    return _not_stored(why) * lines
