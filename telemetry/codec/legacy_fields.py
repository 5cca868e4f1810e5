"""The older tracking service's field rules and sentences, byte for byte.

Its clients send `device_id`, `location`, `speed` and perhaps `timestamp`, over HTTP (`/tracking/data/`) or
as one JSON message on a TCP connection, and read its sentences. What it took and lost by accident is
taken and kept here; what Whimbrel refuses beyond it is said in its shapes.

This file knows no clock, socket, file or Redis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, NamedTuple

from telemetry.codec.record_parser import NAMES, Arrival, field_of, read
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "older"

RECEIVED = "Data received"
BAD_JSON = "Invalid JSON format."
BAD_FORMAT = "Invalid input data format."
NOT_PROCESSED = "There was an error processing the data."
MISSING = "Invalid input data. Missing fields: "

REQUIRED = "This field is required."
NOT_NULL = "This field may not be null."
NOT_BLANK = "This field may not be blank."
NOT_TEXT = "Not a valid string."
TOO_LONG = "Ensure this field has no more than 255 characters."
NUL = "Null characters are not allowed."
NOT_NUMBER = "A valid number is required."
BAD_TIME = (
    "Datetime has wrong format. Use one of these formats instead: YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
)
TIME_RANGE = "Datetime value out of range."

FIELDS = ("device_id", "location", "speed")

_DATE_TIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})[T ](\d{1,2}):(\d{1,2})"
    r"(?::(\d{1,2})(?:[.,](\d{1,6})\d*)?)?\s*(Z|[+-]\d{2}(?::?\d{2})?)?"
)
_ALL_DIGITS = Context(prec=320)
"""A double has at most 309 digits before the point."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NUMBER_CHARACTERS = 1000

Errors = dict[str, list[str]] | list[str]
"""What is wrong with one record: field → sentences; a bare list for a null; empty if nothing is."""


class Refused(Exception):
    """One value breaks one rule; `sentences` say which."""

    def __init__(self, *sentences: str) -> None:
        super().__init__(*sentences)
        self.sentences = list(sentences)


class Checked(NamedTuple):
    """One record after its check: what to echo, and what it is, or `errors`."""

    errors: Errors
    echo: dict[str, Any]
    sent: Sent | None


def check(value: object, transport: str, arrival: Arrival, optional: frozenset[str] = frozenset()) -> Checked:
    """Check one record as the older service does. Fields in `optional` may be left out."""
    if value is None:
        return Checked([NOT_NULL], {}, None)
    if not isinstance(value, dict):
        kind = type(value).__name__
        return Checked({"non_field_errors": [f"Invalid data. Expected a dictionary, but got {kind}."]}, {}, None)
    errors: dict[str, list[str]] = {}
    echo: dict[str, Any] = {}
    for field, rule in RULES.items():
        try:
            if field in value:
                echo[field] = rule(value[field])
            elif field != "timestamp" and field not in optional:
                raise Refused(REQUIRED)
        except Refused as refused:
            errors[field] = refused.sentences
    if errors:
        return Checked(errors, {}, None)
    try:
        return Checked({}, echo, _sent(value, echo, transport, arrival))
    except RecordError as error:
        return Checked({"timestamp": [TIME_RANGE]} if error.field == "timestamp" else {"speed": [NOT_NUMBER]}, {}, None)


def _sent(value: dict[str, object], echo: dict[str, Any], transport: str, arrival: Arrival) -> Sent:
    """The record. What the older service dropped can't spoil it."""
    try:
        return read({**value, **echo}, transport, SOURCE, arrival)
    except RecordError:
        return read({**_further(value, echo, arrival), **echo}, transport, SOURCE, arrival)


def _further(value: dict[str, object], echo: dict[str, Any], arrival: Arrival) -> dict[str, object]:
    """What the older service dropped: by its name if it can be used, else as an attribute, else not at all."""
    usable: dict[str, Any] = {}
    kept: dict[str, object] = {}
    taken = {NAMES[field] for field in echo}
    for name in (name for name in value if name not in RULES):
        field = field_of(name)
        if field is None or field in taken or not _can_read({name: value[name]}, arrival):
            kept[name] = value[name]
        elif value[name] is not None:
            taken.add(field)
            usable[name] = value[name]
    own = usable.pop("attributes", {})
    kept |= own if own.keys().isdisjoint(kept) else {"attributes": own}
    kept = {name: item for name, item in kept.items() if _can_read({"attributes": {name: item}}, arrival)}
    return {**usable, "attributes": kept} if _can_read({"attributes": kept}, arrival) else usable


def _can_read(fields: dict[str, object], arrival: Arrival) -> bool:
    try:
        read({"device_id": "any", **fields}, "http", SOURCE, arrival)
    except RecordError:
        return False
    return True


def text(value: object) -> str:
    """Text of 1 to 255 characters after stripping; a number becomes text."""
    if value is None:
        raise Refused(NOT_NULL)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Refused(NOT_TEXT)
    stripped = str(value).strip()
    if not stripped:
        raise Refused(NOT_BLANK)
    surrogate = _SURROGATE.search(stripped)
    wrong = [
        *([TOO_LONG] if len(stripped) > 255 else []),
        *([NUL] if "\0" in stripped else []),
        *([f"Surrogate characters are not allowed: U+{ord(surrogate[0]):X}."] if surrogate else []),
    ]
    if wrong:
        raise Refused(*wrong)
    return stripped


def speed(value: object) -> float:
    """A finite number, text of one, or a boolean."""
    if value is None:
        raise Refused(NOT_NULL)
    if isinstance(value, str) and len(value) > _MAX_NUMBER_CHARACTERS:
        raise Refused("String value too large.")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise Refused(NOT_NUMBER) from None
    if not math.isfinite(number):
        raise Refused(NOT_NUMBER)
    return number


def timestamp(value: object) -> str:
    """ISO 8601 text, of which no zone means UTC; echoed in UTC."""
    if value is None:
        raise Refused(NOT_NULL)
    moment = parse_time(value) if isinstance(value, str) else None
    if moment is None:
        raise Refused(BAD_TIME)
    try:
        return time_text(moment.astimezone(UTC))
    except OverflowError:
        raise Refused(TIME_RANGE) from None


def parse_time(value: str) -> datetime | None:
    """The moment that ISO 8601 text names, or None."""
    try:
        if re.search(r"[^0-9TZW:.,+\- ]", value) is None and not value.endswith("24:00"):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        pass
    found = _DATE_TIME.fullmatch(value)
    if found is None:
        return None
    year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
    fraction = (found[7] or "0").ljust(6, "0")
    zone = (found[8] or "Z").replace("Z", "+0000").replace(":", "").ljust(5, "0")
    try:
        moment = datetime(year, month, day, hour, minute, int(found[6] or 0), int(fraction))
        return datetime.strptime(f"{moment.isoformat()} {zone}", _WITH_FRACTION[moment.microsecond > 0])
    except ValueError:
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WITH_FRACTION = {True: "%Y-%m-%dT%H:%M:%S.%f %z", False: "%Y-%m-%dT%H:%M:%S %z"}


def time_text(moment: datetime) -> str:
    """2024-11-12T10:25:00Z of a moment in UTC, with six digits of fraction where it isn't zero."""
    return moment.isoformat()[: -len("+00:00")] + "Z"


def moment(timestamp_us: int) -> datetime:
    """The UTC moment of µs since the epoch."""
    return _EPOCH + timedelta(microseconds=timestamp_us)


def rounded(number: float) -> str:
    """Two decimals, half away from zero, of the number as it is written: 1.005 becomes 1.01."""
    found = Decimal(repr(number)).quantize(Decimal("0.01"), ROUND_HALF_UP, _ALL_DIGITS)
    return str(found.copy_abs() if found.is_zero() else found)


RULES: dict[str, Callable[[object], Any]] = {
    "device_id": text,
    "location": text,
    "speed": speed,
    "timestamp": timestamp,
}
"""The fields that the older service knows, in its order, and what each may be."""


def missing_fields(values: list[object]) -> list[str]:
    """Fields that any record of a TCP message lacks; one with coordinates needs no location or speed."""
    lacking = {
        field
        for value in values
        if isinstance(value, dict)
        for field in FIELDS
        if field not in value.keys() | _spared(value)
    }
    return [field for field in FIELDS if field in lacking]


def _spared(value: Mapping[str, object]) -> frozenset[str]:
    fields = {field_of(name) for name, item in value.items() if item is not None}
    return frozenset(("location", "speed")) if {"latitude", "longitude"} <= fields else frozenset()


def check_message(values: list[object], arrival: Arrival) -> list[Sent] | str:
    """The records of one TCP message, or the sentence that says why it is refused."""
    missing = missing_fields(values)
    if missing:
        return MISSING + ", ".join(missing)
    records = []
    for value in values:
        optional = _spared(value) if isinstance(value, dict) else frozenset()
        checked = check(value, "tcp", arrival, optional)
        if checked.sent is None or not (checked.sent.record.has_fix or checked.echo.keys() >= set(FIELDS)):
            return BAD_FORMAT
        records.append(checked.sent)
    return records
