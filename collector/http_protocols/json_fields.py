"""Looking into JSON that a phone or a server posted: each says what it finds, or that it isn't there."""

from __future__ import annotations

from collector.http_protocols.protocol import NotOurs
from telemetry.codec import json_decoder
from telemetry.codec.record_parser import read_number
from telemetry.model.errors import RecordError, SyntaxFault

Object = dict[str, object]

MAX_CONTAINERS = 200_000
"""Objects and arrays of one body: they cost 60 bytes each however short their text is."""


def read_json(body: bytes) -> object:
    """The value of a body. Raises `NotOurs`."""
    try:
        return json_decoder.read(body, MAX_CONTAINERS)
    except SyntaxFault as fault:
        raise NotOurs(str(fault)) from None


def opened(value: object) -> list[Object]:
    """An object, or those of an array. Raises `NotOurs`."""
    values = value if isinstance(value, list) else [value]
    found = [one for one in values if isinstance(one, dict)]
    if len(found) < len(values):
        raise NotOurs("JSON must be an object or an array of them")
    return found


def item(value: Object, name: str) -> Object:
    """The object of that name; an empty one if there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def items(value: Object, name: str) -> list[Object]:
    """The object of that name, or all of an array."""
    found = value.get(name)
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]


def number(value: Object, name: str) -> float | None:
    """The number of that name, or text that is one. Raises `RecordError`."""
    found = value.get(name)
    if isinstance(found, bool):
        raise RecordError(name, found, "must be a number, not true or false")
    return read_number(name, found)


def flag(value: Object, name: str) -> bool | None:
    """The truth of that name; None if it isn't told."""
    found = value.get(name)
    return found if isinstance(found, bool) else None
