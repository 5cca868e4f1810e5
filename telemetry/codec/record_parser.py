"""Converts a sender's JSON object to a `Record`: the only place that defines names, units, types and bounds.

All decoders of maps call `read`. Unknown fields, and the content of an `attributes` object, are stored as sent under
`attributes`. The parser never guesses: two names for one field, a wrong type or a value out of its bounds raise
`RecordError` with the field, the value and the reason.

This file uses no clock, socket, file or Redis; the moment of arrival is an argument.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from telemetry.model.api_keys import looks_like_key
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Sent

MAX_ID_CHARACTERS = 255
MAX_DEPTH = 32
"""Maximum nesting inside `attributes`; analysis tools parse it recursively."""

EPOCH_MS_FROM = 100_000_000_000
"""An epoch of at least this is in ms. In seconds it would be the year 5138, in ms it is 1973."""

KMH = {"kmh": 1.0, "knots": 1.852, "ms": 3.6, "mph": 1.609344}
"""Factors from each unit of speed to km/h."""

NAMES = {
    "device_id": "device_id",
    "timestamp": "timestamp",
    "time": "timestamp",
    "latitude": "latitude",
    "lat": "latitude",
    "longitude": "longitude",
    "lon": "longitude",
    "lng": "longitude",
    "altitude_m": "altitude_m",
    "altitude": "altitude_m",
    "alt": "altitude_m",
    "speed_kmh": "speed_kmh",
    "speed": "speed_kmh",
    "heading_deg": "heading_deg",
    "heading": "heading_deg",
    "bearing": "heading_deg",
    "course": "heading_deg",
    "accuracy_m": "accuracy_m",
    "accuracy": "accuracy_m",
    "acc": "accuracy_m",
    "location": "location",
    "attributes": "attributes",
}
"""Field names that senders use, in lower case, and their fields. `field_of` looks up a name in any case."""

KEY_FIELD = "token"
"""Name of the field with the sender's key in a message."""

PLAIN_SPEED = "speed"
"""Name of a speed in the unit of the listener."""

NUMBERS = ("altitude_m", "speed_kmh", "heading_deg", "accuracy_m")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PAIR = re.compile(r"\s*([+-]?\d{1,3}(?:\.\d+)?)\s*,\s*([+-]?\d{1,3}(?:\.\d+)?)\s*", re.ASCII)
_ISO = re.compile(r"\d{4}-?(?:\d\d-?\d\d|[Ww]\d\d(?:-?\d)?)(?:[Tt ][\d:.,+\-Zz ]+)?", re.ASCII)
"""A date and optionally a time. `fromisoformat` accepts any separator, and reads 2024-11-12+03:00 as 3 o'clock."""

_USUAL_LENGTHS = (20, 24, 27)
"""Lengths of 2026-11-24T10:25:00Z and the same with three or six digits of fraction, which need no further check."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_encode_json = msgspec.json.Encoder().encode


class Arrival(NamedTuple):
    """The arrival of a message, and the settings that apply to its records.

    `latest_us` is the maximum timestamp, not too far in the future; without limit while the box's own clock is not
    trusted.
    """

    now_us: int
    latest_us: int = LATEST_US
    speed_unit: str = "kmh"
    max_record_bytes: int = 2**20


def read(value: object, transport: str, source: str, arrival: Arrival) -> Sent:
    """Check one JSON value and convert it to a record. Raises `RecordError`."""
    if type(value) is not dict:
        raise RecordError(None, value, f"a record must be an object, not {json_type(value)}")
    known, attributes = _sort(value)
    device_id = read_device_id(known.get("device_id"))
    latitude = read_coordinate("latitude", known.get("latitude"), 90.0)
    longitude = read_coordinate("longitude", known.get("longitude"), 180.0)
    location = read_location(known.get("location"), arrival.max_record_bytes)
    if location is not None and latitude is None and longitude is None:
        latitude, longitude = read_pair(location)
    altitude_m, speed_kmh, heading_deg, accuracy_m = [read_number(n, known.get(n)) for n in NUMBERS]
    if speed_kmh is not None and arrival.speed_unit != "kmh" and has_plain_speed(value):
        speed_kmh = read_number("speed_kmh", speed_kmh * KMH[arrival.speed_unit])
    record = Record(
        timestamp_us=read_timestamp(known.get("timestamp"), arrival),
        transport=transport,
        source=source,
        latitude=latitude,
        longitude=longitude,
        altitude_m=altitude_m,
        speed_kmh=speed_kmh,
        heading_deg=heading_deg,
        accuracy_m=accuracy_m,
        location=location,
        attributes=read_attributes(attributes, arrival.max_record_bytes) if attributes else None,
    )
    return Sent(device_id, record)


def field_of(name: str) -> str | None:
    """The field for a sender's name, in any case; None if it is an attribute."""
    return NAMES.get(name) or NAMES.get(name.lower())


def has_plain_speed(names: Iterable[str]) -> bool:
    """True if one of the names is a speed in the unit of the listener."""
    return any(name.lower() == PLAIN_SPEED for name in names)


def _sort(value: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Split an object into known fields, by field name, and all others."""
    known: dict[str, object] = {}
    attributes: dict[str, object] = {}
    for name, item in value.items():
        field = NAMES.get(name) or NAMES.get(name.lower())  # `field_of`, inlined for speed
        if field is None:
            if name.lower() != KEY_FIELD or not looks_like_key(item):  # a key must not be readable in records
                attributes[name] = item
        elif field in known:
            raise RecordError(field, item, f"sent twice, the second time as {name!r}")
        else:
            known[field] = item
    own = known.pop("attributes", None)
    if own is None:
        return known, attributes
    if type(own) is not dict:
        raise RecordError("attributes", own, f"must be an object, not {json_type(own)}")
    duplicates = own.keys() & attributes.keys()
    if duplicates:
        name = min(duplicates)
        raise RecordError(name, attributes[name], "sent twice, both outside and inside `attributes`")
    return known, own | attributes


def read_device_id(value: object) -> str:
    """1 to 255 characters; an integer is converted to text."""
    if type(value) is int:
        value = str(value)
    if type(value) is not str:
        reason = "required" if value is None else f"must be text, not {json_type(value)}"
        raise RecordError("device_id", value, reason)
    if not value or value.isspace():
        raise RecordError("device_id", value, "must not be blank")
    if len(value) > MAX_ID_CHARACTERS:
        raise RecordError("device_id", value, f"must have at most {MAX_ID_CHARACTERS} characters, not {len(value)}")
    return _text("device_id", value)


def read_number(field: str, value: object) -> float | None:
    """A finite number, as a number or as text."""
    if value is None:
        return None
    kind = type(value)
    if kind is float or kind is int or (kind is str and _is_plain_number(value)):  # type: ignore[arg-type]
        try:
            number = float(value)  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    reason = "must be a finite number" if kind in (float, int, str) else f"must be a number, not {json_type(value)}"
    raise RecordError(field, value, reason)


def _is_plain_number(text: str) -> bool:
    """False for texts that only Python accepts as numbers: `1_000`, and digits of other scripts."""
    return text.isascii() and "_" not in text


def read_coordinate(field: str, value: object, bound: float) -> float | None:
    """Degrees from -bound to bound."""
    number = read_number(field, value)
    if number is not None and not -bound <= number <= bound:
        raise RecordError(field, value, f"must be between -{bound:g} and {bound:g}")
    return number


def read_location(value: object, max_bytes: int) -> str | None:
    """Free text, as sent."""
    if value is None:
        return None
    if type(value) is not str:
        raise RecordError("location", value, f"must be text, not {json_type(value)}")
    if len(value) > max_bytes // 4 and len(_text("location", value).encode()) > max_bytes:
        raise RecordError("location", value, f"must have at most {max_bytes} bytes")
    return _text("location", value)


def read_pair(location: str) -> tuple[float | None, float | None]:
    """The two coordinates of a valid "lat,lon" text; two None of any other."""
    match = _PAIR.fullmatch(location)
    if match is None:
        return None, None
    latitude, longitude = float(match[1]), float(match[2])
    if abs(latitude) > 90 or abs(longitude) > 180:
        return None, None
    return latitude, longitude


def read_timestamp(value: object, arrival: Arrival) -> int:
    """µs since the epoch of ISO 8601 text (UTC without a zone) or an epoch in s or ms; the arrival for None."""
    if value is None:
        return arrival.now_us
    timestamp_us = _epoch_us(value) if type(value) in (int, float) else _text_us(value)
    return check_timestamp(timestamp_us, value, arrival)


def check_timestamp(timestamp_us: int, value: object, arrival: Arrival) -> int:
    """Return `timestamp_us` if it is in range; `value` is the original. Raises `RecordError`."""
    if not EARLIEST_US <= timestamp_us < LATEST_US:
        raise RecordError("timestamp", value, "must be between 2000-01-01 and 2200-01-01")
    if timestamp_us > arrival.latest_us:
        latest = (_EPOCH + arrival.latest_us * _MICROSECOND).replace(tzinfo=None).isoformat()
        raise RecordError("timestamp", value, f"must not be after {latest}Z, too far ahead of the box's clock")
    return timestamp_us


def _epoch_us(value: object) -> int:
    number = value if type(value) is int else read_number("timestamp", value)
    if number is None or abs(number) > LATEST_US:
        return LATEST_US
    scale = 1_000 if abs(number) >= EPOCH_MS_FROM else 1_000_000
    return round(number * scale)


def _text_us(value: object) -> int:
    if type(value) is not str:
        raise RecordError("timestamp", value, f"must be text or a number, not {json_type(value)}")
    text = value.strip()
    try:
        return iso_us(text)
    except ValueError:
        pass
    try:
        return _epoch_us(float(text) if _is_plain_number(text) else math.nan)
    except (ValueError, RecordError):
        reason = "must be ISO 8601, like 2026-11-24T10:25:00Z, or an epoch in s or ms"
        raise RecordError("timestamp", value, reason) from None


def iso_us(text: str) -> int:
    """µs since the epoch of ISO 8601 text, UTC without a zone. Raises `ValueError`."""
    if len(text) in _USUAL_LENGTHS and text[10] == "T" and text[-1] == "Z":  # fast path
        return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
    if text.isdigit() or not _ISO.fullmatch(text):
        raise ValueError(text)  # 20241112 is a quoted epoch, not a day
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def read_attributes(attributes: dict[str, object], max_bytes: int) -> str:
    """The JSON text of the fields that are stored as sent."""
    try:
        _check_kept(attributes, MAX_DEPTH)
        text = _encode_json(attributes)
    except ValueError as error:  # a lone surrogate, or an integer of thousands of digits
        raise RecordError("attributes", None, f"cannot be stored: {error}") from None
    if len(text) > max_bytes:
        raise RecordError("attributes", None, f"must have at most {max_bytes} bytes, not {len(text)}")
    return text.decode()


def _check_kept(value: dict[str, object] | list[object], left: int) -> None:
    """Reject values that are nested too deep, and numbers that JSON would write as null."""
    if left == 0:
        raise RecordError("attributes", None, f"must not be nested deeper than {MAX_DEPTH}")
    for item in value.values() if type(value) is dict else value:
        if type(item) is dict or type(item) is list:
            _check_kept(item, left - 1)
        elif type(item) is float and not math.isfinite(item):
            raise RecordError("attributes", item, "must not hold a number that is not finite")


def _text(field: str, text: str) -> str:
    """Text that every reader can process."""
    if "\0" in text:
        raise RecordError(field, text, "must not hold a NUL character")
    if not text.isascii() and _SURROGATE.search(text):
        raise RecordError(field, text, "must not hold a lone surrogate")
    return text


_JSON_TYPES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def json_type(value: object) -> str:
    """JSON's name of a value's type, with its article."""
    return _JSON_TYPES.get(type(value), type(value).__name__)
