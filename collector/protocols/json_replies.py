"""What JSON lines and the msgpack stream have in common: a message is a record or an array of them, and is
answered by a map.

    {"message": "Data received", "accepted": 2}
    {"message": "Invalid input data format.", "error": "record 1: latitude: must be …", "retry": false}

Where a key is required, a record's `token` is its sender's; a map with nothing else says it for all that follow.

    {"message": "Not authorized.", "error": "this key is not known here: …", "status": 401, "retry": false}
"""

from __future__ import annotations

from telemetry.codec import legacy_fields
from telemetry.codec.json_compat import json_like
from telemetry.codec.record_parser import KEY_FIELD, Arrival, read
from telemetry.model import problems
from telemetry.model.api_keys import Denied, looks_like_key
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

Answer = dict[str, object]

NOT_AUTHORIZED = "Not authorized."
WELCOME: Answer = {"message": "Key accepted"}


def read_records(value: object, max_records: int, source: str, arrival: Arrival) -> list[Sent]:
    """The records of a message, `source` "json" or "msgpack". Raises `RecordError` with the index of the bad one."""
    values = value if isinstance(value, list) else [value]
    if len(values) > max_records:
        raise RecordError(None, None, f"{len(values)} records in one message, more than {max_records}")
    records = []
    for index, one in enumerate(values):
        try:
            records.append(read(json_like(one) if source == "msgpack" else one, "tcp", source, arrival))
        except RecordError as error:
            error.index = index
            raise
    return records


def take_token(value: object) -> str:
    """The key that a message has, which is taken out of its records; empty if it has none.

    Raises `RecordError` if it has several.
    """
    found = ""
    for index, one in enumerate(value if isinstance(value, list) else [value]):
        if type(one) is dict and looks_like_key(one.get(KEY_FIELD)):
            token = one.pop(KEY_FIELD)
            if found and token != found:
                raise RecordError(KEY_FIELD, None, "must be the same in all records of a message", index)
            found = token
    return found


def is_hello(value: object, token: str) -> bool:
    """Whether nothing but a key was said."""
    return bool(token) and value == {}


def received(records: int) -> Answer:
    """All records are on disk."""
    return {"message": legacy_fields.RECEIVED, "accepted": records}


def not_stored(reason: str) -> Answer:
    """Nothing is wrong with the message, but it could not be stored now."""
    return {"message": legacy_fields.NOT_PROCESSED, "error": reason, "retry": True}


def denied(why: Denied) -> Answer:
    """The key does not allow it, or it can't be told now."""
    if why.kind is problems.BUSY:
        return not_stored(why.reason)
    return {"message": NOT_AUTHORIZED, "error": why.reason, "status": why.kind.status, "retry": False}


def rejected(sentence: str, reason: str) -> Answer:
    """Nothing of the message was stored; it will be refused again."""
    return {"message": sentence, "error": reason, "retry": False}


def refused(error: RecordError) -> Answer:
    """One record can't be taken, and so none of its message."""
    required = error.field == "device_id" and error.value is None and error.reason == "required"
    return rejected(legacy_fields.MISSING + "device_id" if required else legacy_fields.BAD_FORMAT, reason(error))


def reason(error: RecordError) -> str:
    """What is wrong, and with which record."""
    return str(error) if error.index is None else f"record {error.index}: {error}"
