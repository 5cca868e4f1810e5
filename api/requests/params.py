"""Query parameters, each checked."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import Request

from telemetry.codec.record_parser import EPOCH_MS_FROM, iso_us
from telemetry.http.operations import InvalidValue, Parameter, choice, whole
from telemetry.http.problem_responses import invalid_parameter
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import DAY_US

DEFAULT_LIMIT = 1_000
MAX_DEVICES = 1_000
"""Devices that one request may name."""

MOST_LIMIT = 50_000
MAX_CURSOR_CHARACTERS = 255

_DATE = re.compile(r"\d{4}-(\d{2}-\d{2}|W\d{2}-\d)", re.ASCII)
_LOST_PLUS = re.compile(r"([Tt ].*\d) (\d{2}(?::?\d{2})?)$")  # `+` in a query is a space
_PLACE = re.compile(r"(\d{1,16})-(.{1,255})", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d*)?", re.ASCII)


class Position(NamedTuple):
    """A place in the order of records: that of the last record of a page."""

    timestamp_us: int
    id: int

    def __str__(self) -> str:
        return f"{self.timestamp_us}-{self.id}"


class Place(NamedTuple):
    """A place in the order of devices and of time within each: that of the last object of a page."""

    device_id: str
    start_us: int

    def __str__(self) -> str:
        return f"{self.start_us}-{self.device_id}"


DEVICE_ID = Parameter[list[str]](
    "device_id",
    "These devices; all where it isn't given.",
    {"type": "array", "items": {"type": "string"}, "maxItems": MAX_DEVICES},
    lambda text: [text],
    default=[],
    is_repeated=True,
)


def devices(request: Request) -> list[str]:
    """All `device_id`, each once, in their order."""
    found = list(dict.fromkeys(request.query_params.getlist(DEVICE_ID.name)))
    if len(found) > MAX_DEVICES:
        raise invalid_parameter(DEVICE_ID.name, f"may be given {MAX_DEVICES} times, not {len(found)}")
    return found


def limit_to(most: int) -> Parameter[int]:
    """`limit`, 1 to `most`."""
    return whole("limit", "Most objects of a page.", min(DEFAULT_LIMIT, most), 1, most)


LIMIT = limit_to(MOST_LIMIT)
"""As pages describe it; `api.max_page_records` says how much it really may be."""


def limit(request: Request, most: int) -> int:
    """`limit`, 1 to `most`."""
    return limit_to(most).of(request)


ORDER = choice("order", "By (`timestamp`, `id`): the oldest first, or the newest.", ("asc", "desc"), "asc")


def is_descending(request: Request) -> bool:
    """Whether `order` asks for the newest first."""
    return ORDER.of(request) == "desc"


# Moments ---------------------------------------------------------------------------------------------

NO_MOMENT = "must be a date, a time like 2026-11-24T10:25:00Z, or an epoch in s"
MOMENT = {
    "type": "string",
    "pattern": r"^\s*([-0-9][-0-9TtWwZz:.,+ ]*)?\s*$",
    "examples": ["2026-11-24T10:25:00Z", "2026-11-24"],
}
"""Its pattern takes more than the reader: a schema has no words for all forms of ISO 8601."""


def moment(name: str, sentence: str, default_us: int | None, of_day_us: int = 0) -> Parameter[int | None]:
    """A moment in µs since the epoch; blank it means the default, if there is one."""

    def read(text: str) -> int | None:
        if not text.strip():
            if default_us is None:
                raise InvalidValue(NO_MOMENT)
            return default_us
        try:
            return moment_us(text.strip(), of_day_us)
        except RecordError as error:
            raise InvalidValue(error.reason) from None

    return Parameter(name, sentence, MOMENT, read, default_us)


START = moment("start", "First moment, inclusive: ISO 8601, an epoch in seconds, or a date.", EARLIEST_US)
END = moment("end", "Last moment, exclusive; a bare date includes that whole day.", LATEST_US, DAY_US)


def span(request: Request) -> tuple[int, int]:
    """`start` (inclusive) and `end` in µs since the epoch; a bare date as `end` includes that whole day."""
    return START.of(request) or EARLIEST_US, END.of(request) or LATEST_US


def moment_us(text: str, of_day_us: int) -> int:
    """µs of ISO 8601 (no zone: UTC), an epoch in s, or a date, to whose midnight `of_day_us` is added.

    Raises `RecordError`. No record lies before 2000 or after 2200: a moment there means the nearer end.
    """
    try:
        found = iso_us(text) + of_day_us if _DATE.fullmatch(text) else _instant_us(text)
    except ValueError:
        raise RecordError("timestamp", text, NO_MOMENT) from None
    return min(max(found, EARLIEST_US), LATEST_US)


def _instant_us(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        return iso_us(_LOST_PLUS.sub(r"\1+\2", text))
    number = min(max(float(text), 0.0), float(LATEST_US))
    return round(number * (1_000 if number >= EPOCH_MS_FROM else 1_000_000))


# Cursors ---------------------------------------------------------------------------------------------

NOT_OURS = "must be the next_cursor of an earlier answer"


def _position(text: str) -> Position | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,16})-(\d{1,16})", text, re.ASCII)
    if found is None:
        raise InvalidValue(NOT_OURS)
    return Position(int(found[1]), int(found[2]))


def _place(text: str) -> Place | None:
    if not text:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InvalidValue(NOT_OURS)
    return Place(found[2], int(found[1]))


def _device(text: str) -> str:
    if len(text) > MAX_CURSOR_CHARACTERS:
        raise InvalidValue(NOT_OURS)
    return text


_CURSOR = "`next_cursor` of the page before, with the same other parameters."
CURSOR = Parameter(
    "cursor", _CURSOR, {"type": "string", "pattern": r"^([0-9]{1,16}-[0-9]{1,16})?$"}, _position, default=None
)
PLACE = Parameter(
    "cursor", _CURSOR, {"type": "string", "pattern": r"^([0-9]{1,16}-[\s\S]{1,255})?$"}, _place, default=None
)
DEVICE_CURSOR = Parameter(
    "cursor", _CURSOR, {"type": "string", "maxLength": MAX_CURSOR_CHARACTERS}, _device, default=""
)


def cursor(request: Request) -> Position | None:
    """Where the last page ended."""
    return CURSOR.of(request)


def place(request: Request) -> Place | None:
    """Where the last page ended, where objects are in the order of devices."""
    return PLACE.of(request)
