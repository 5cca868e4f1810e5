"""Converts msgpack values that JSON lacks to their JSON equivalents, so that records are equal in both formats."""

from __future__ import annotations

from datetime import datetime

from telemetry.codec.record_parser import MAX_DEPTH, field_of, json_type
from telemetry.model.errors import RecordError

MAX_SHOWN_BYTES = 100

_PLAIN = frozenset((str, int, float, bool, type(None)))
_TEXT = frozenset((str,))


def json_like(value: object) -> object:
    """The record as decoded JSON would have it. Raises `RecordError` for a value without a JSON equivalent.

    A timestamp becomes ISO 8601. Bytes that are UTF-8 become text: the first version of msgpack has no text type.
    """
    if type(value) is not dict:
        return _convert(None, value, 0)
    if _PLAIN.issuperset(map(type, value.values())) and _TEXT.issuperset(map(type, value)):
        return value
    return {(text := _name(name)): _convert(field_of(text) or text, item, 0) for name, item in value.items()}


def _convert(field: str | None, value: object, depth: int) -> object:
    if type(value) in _PLAIN or depth > MAX_DEPTH + 1:  # record_parser.py rejects deeper values
        return value
    if type(value) is dict:
        return {_name(name): _convert(field, item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return [_convert(field, item, depth + 1) for item in value]
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
