"""Messages and replies of JSON lines and the msgpack stream: a message is a record or an array of records, its reply a
map.

    {"message": "Data received", "accepted": 2}
    {"message": "Invalid input data format.", "error": "record 1: latitude: must be …", "retry": false}

If a key is required, a record's `token` is the sender's key. A map with only a `token` sets it for all messages that
follow.

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
    """The records of a message, `source` "json" or "msgpack". Raises `RecordError` with the index of an invalid one."""
    values = value if isinstance(value, list) else [value]
    if len(values) > max_records:
        raise RecordError(None, None, f"{len(values)} records in one message, more than {max_records}")
    records = []
    for index, fields in enumerate(values):
        try:
            records.append(read(json_like(fields) if source == "msgpack" else fields, "tcp", source, arrival))
        except RecordError as error:
            error.index = index
            raise
    return records


def take_token(value: object) -> str:
    """Remove the key from a message's records and return it; empty without a key.

    Raises `RecordError` if the records have different keys.
    """
    first_token = ""
    for index, fields in enumerate(value if isinstance(value, list) else [value]):
        if type(fields) is dict and looks_like_key(fields.get(KEY_FIELD)):
            token = fields.pop(KEY_FIELD)
            if first_token and token != first_token:
                raise RecordError(KEY_FIELD, None, "must be the same in all records of a message", index)
            first_token = token
    return first_token


def is_hello(value: object, token: str) -> bool:
    """True if a message contained only a key."""
    return bool(token) and value == {}


def received(records: int) -> Answer:
    """The reply if all records are on disk."""
    return {"message": legacy_fields.RECEIVED, "accepted": records}


def not_stored(reason: str) -> Answer:
    """The reply to a valid message that could not be stored now."""
    return {"message": legacy_fields.NOT_PROCESSED, "error": reason, "retry": True}


def denied(why: Denied) -> Answer:
    """The reply if the key does not allow the message, or could not be checked now."""
    if why.kind is problems.BUSY:
        return not_stored(why.reason)
    return {"message": NOT_AUTHORIZED, "error": why.reason, "status": why.kind.status, "retry": False}


def rejected(sentence: str, reason: str) -> Answer:
    """The reply to an invalid message: nothing was stored, and a retry would be rejected too."""
    return {"message": sentence, "error": reason, "retry": False}


def refused(error: RecordError) -> Answer:
    """The reply to a message with an invalid record: none of its records was stored."""
    required = error.field == "device_id" and error.value is None and error.reason == "required"
    return rejected(legacy_fields.MISSING + "device_id" if required else legacy_fields.BAD_FORMAT, reason(error))


def reason(error: RecordError) -> str:
    """The reason, after the index of the record."""
    return str(error) if error.index is None else f"record {error.index}: {error}"
