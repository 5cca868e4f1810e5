"""Field rules and error texts of the legacy tracking service, byte for byte.

Its clients send `device_id`, `location`, `speed` and optionally `timestamp`, over HTTP (`/tracking/data/`) or as one
JSON message on a TCP connection, and parse its error texts. Values that the service accepted and lost by accident are
accepted and stored here. Values that only Whimbrel rejects are reported in the legacy format.

This file uses no clock, socket, file or Redis.
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
"""A double has at most 309 digits before the decimal point."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NUMBER_CHARACTERS = 1000

Errors = dict[str, list[str]] | list[str]
"""Faults of one record: field → error texts; a bare list for a null; empty if the record is valid."""


class Refused(Exception):
    """One value breaks a rule; `sentences` are the error texts."""

    def __init__(self, *sentences: str) -> None:
        super().__init__(*sentences)
        self.sentences = list(sentences)


class Checked(NamedTuple):
    """One record after its check: the fields to echo, and the record or its `errors`."""

    errors: Errors
    echo: dict[str, Any]
    sent: Sent | None


def check(value: object, transport: str, arrival: Arrival, optional: frozenset[str] = frozenset()) -> Checked:
    """Check one record by the legacy rules. Fields in `optional` may be missing."""
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
    """The record. Fields that the legacy service dropped cannot make it invalid."""
    try:
        return read({**value, **echo}, transport, SOURCE, arrival)
    except RecordError:
        return read({**_further(value, echo, arrival), **echo}, transport, SOURCE, arrival)


def _further(value: dict[str, object], echo: dict[str, Any], arrival: Arrival) -> dict[str, object]:
    """The fields that the legacy service dropped: known ones by name if valid, others as attributes if valid."""
    usable: dict[str, Any] = {}
    further: dict[str, object] = {}
    known = {NAMES[field] for field in echo}
    for name in (name for name in value if name not in RULES):
        field = field_of(name)
        if field is None or field in known or not _can_read({name: value[name]}, arrival):
            further[name] = value[name]
        elif value[name] is not None:
            known.add(field)
            usable[name] = value[name]
    own = usable.pop("attributes", {})
    further |= own if own.keys().isdisjoint(further) else {"attributes": own}
    further = {name: item for name, item in further.items() if _can_read({"attributes": {name: item}}, arrival)}
    return {**usable, "attributes": further} if _can_read({"attributes": further}, arrival) else usable


def _can_read(fields: dict[str, object], arrival: Arrival) -> bool:
    try:
        read({"device_id": "any", **fields}, "http", SOURCE, arrival)
    except RecordError:
        return False
    return True


def text(value: object) -> str:
    """Text of 1 to 255 characters after stripping; numbers are converted to text."""
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
    """A finite number, a number as text, or a boolean."""
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
    """ISO 8601 text, UTC if it has no zone; echoed in UTC."""
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
    """Parse ISO 8601 text; None if it is not valid."""
    try:
        if re.search(r"[^0-9TZW:.,+\- ]", value) is None and not value.endswith("24:00"):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        pass
    match = _DATE_TIME.fullmatch(value)
    if match is None:
        return None
    year, month, day, hour, minute = (int(group) for group in match.groups()[:5])
    fraction = (match[7] or "0").ljust(6, "0")
    zone = (match[8] or "Z").replace("Z", "+0000").replace(":", "").ljust(5, "0")
    try:
        moment = datetime(year, month, day, hour, minute, int(match[6] or 0), int(fraction))
        return datetime.strptime(f"{moment.isoformat()} {zone}", _WITH_FRACTION[moment.microsecond > 0])
    except ValueError:
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WITH_FRACTION = {True: "%Y-%m-%dT%H:%M:%S.%f %z", False: "%Y-%m-%dT%H:%M:%S %z"}


def time_text(moment: datetime) -> str:
    """Format a moment in UTC as 2024-11-12T10:25:00Z, with six digits of fraction unless they are zero."""
    return moment.isoformat()[: -len("+00:00")] + "Z"


def moment(timestamp_us: int) -> datetime:
    """Convert µs since the epoch to a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=timestamp_us)


def rounded(number: float) -> str:
    """Format with two decimals, half away from zero, based on the decimal notation: 1.005 becomes 1.01."""
    cents = Decimal(repr(number)).quantize(Decimal("0.01"), ROUND_HALF_UP, _ALL_DIGITS)
    return str(cents.copy_abs() if cents.is_zero() else cents)


RULES: dict[str, Callable[[object], Any]] = {
    "device_id": text,
    "location": text,
    "speed": speed,
    "timestamp": timestamp,
}
"""Fields of the legacy service, in its order, with their checks."""


def missing_fields(values: list[object]) -> list[str]:
    """Required fields that any record of a TCP message lacks. A record with coordinates needs no location or speed."""
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
    """The records of one TCP message, or the error text if it is rejected."""
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
