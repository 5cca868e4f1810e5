"""What msgpack can say and JSON can't, made what JSON would have, so that records are the same in either."""

from __future__ import annotations

from datetime import datetime

from telemetry.codec.record_parser import MAX_DEPTH, field_of, json_type
from telemetry.model.errors import RecordError

MAX_SHOWN_BYTES = 100

_PLAIN = frozenset((str, int, float, bool, type(None)))
_TEXT = frozenset((str,))


def json_like(value: object) -> object:
    """The record as JSON would have it. Raises `RecordError` for what JSON has nothing for.

    A moment becomes ISO 8601. Bytes that are UTF-8 become text: senders of the format's first version have no other.
    """
    if type(value) is not dict:
        return _kept(None, value, 0)
    if _PLAIN.issuperset(map(type, value.values())) and _TEXT.issuperset(map(type, value)):
        return value
    return {(text := _name(name)): _kept(field_of(text) or text, item, 0) for name, item in value.items()}


def _kept(field: str | None, value: object, depth: int) -> object:
    if type(value) in _PLAIN or depth > MAX_DEPTH + 1:  # what is deeper, record_parser.py refuses
        return value
    if type(value) is dict:
        return {_name(name): _kept(field, item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return [_kept(field, item, depth + 1) for item in value]
    if type(value) is datetime:
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise RecordError(field, value[:MAX_SHOWN_BYTES].hex(), "must be UTF-8 text, not other bytes") from None
    raise RecordError(field, None, "must not be of an extension type")


def _name(name: object) -> str:
    if type(name) is str:
        return name
    shown = name if type(name) in _PLAIN else None
    raise RecordError(None, shown, f"names must be text, not {json_type(name)}")
