"""Legacy message over TCP: the only value of a connection, answered as the legacy service answers it.

The answer repeats the data and has no newline (telemetry/codec/legacy_fields.py). The connection is closed after it.
"""

from __future__ import annotations

import json
from typing import NoReturn

from collector.framing.decoder import Message, Received, Rejected
from collector.protocols.json_replies import NOT_AUTHORIZED, take_token
from telemetry.codec import legacy_fields
from telemetry.codec.record_parser import Arrival
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.model.errors import RecordError
from telemetry.model.problems import Problem


def read(text: bytes, arrival: Arrival) -> Message:
    """The message with this text."""
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return _rejected(problems.INVALID_JSON, legacy_fields.NOT_PROCESSED, f"not UTF-8: {error.reason}")
    except (ValueError, RecursionError) as error:
        return _rejected(problems.INVALID_JSON, legacy_fields.BAD_JSON, str(error))
    return _of_value(value, len(text), arrival)


def nothing_sent() -> Rejected:
    """The message of a connection that ended without a byte."""
    return _rejected(None, legacy_fields.BAD_JSON, "nothing was sent")


def too_long(why: str) -> Rejected:
    """A message that is longer than allowed."""
    return _rejected(problems.BODY_TOO_LARGE, legacy_fields.NOT_PROCESSED, why)


def _of_value(value: object, size_bytes: int, arrival: Arrival) -> Message:
    try:
        token = take_token(value)
    except RecordError as error:
        return _rejected(problems.INVALID_RECORD, legacy_fields.BAD_FORMAT, str(error))
    values = value if isinstance(value, list) else [value]
    records = legacy_fields.check_message(values, arrival)
    if isinstance(records, str):
        return _rejected(problems.INVALID_RECORD, records, records)
    try:
        answer = json.dumps({"message": legacy_fields.RECEIVED, "data": values}, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # a number that is not finite, or nesting as deep as can be read
        return _rejected(problems.INVALID_RECORD, legacy_fields.BAD_FORMAT, str(error))
    return Received(records, size_bytes, answer, _not_stored, last=True, token=token, denied=_denied)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _rejected(kind: Problem | None, sentence: str, reason: str) -> Rejected:
    return Rejected(kind, reason, json.dumps({"message": sentence}).encode(), last=True)


def _denied(why: Denied) -> bytes:
    sentence = legacy_fields.NOT_PROCESSED if why.kind is problems.BUSY else NOT_AUTHORIZED
    return json.dumps({"message": sentence}).encode()


def _not_stored(_reason: str) -> bytes:
    return json.dumps({"message": legacy_fields.NOT_PROCESSED}).encode()
