"""Query parameters, each checked."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import Request

from collector.http import invalid_parameter
from telemetry.days import DAY_US
from telemetry.errors import RecordError
from telemetry.fields import EPOCH_MS_FROM, iso_us
from telemetry.record import EARLIEST_US, LATEST_US

DEFAULT_LIMIT = 1_000
MAX_DEVICES = 1_000
"""Devices that one request may name."""

_DATE = re.compile(r"\d{4}-(\d{2}-\d{2}|W\d{2}-\d)", re.ASCII)
_LOST_PLUS = re.compile(r"([Tt ].*\d) (\d{2}(?::?\d{2})?)$")  # `+` in a query is a space
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)
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


def devices(request: Request) -> list[str]:
    """All `device_id`, each once, in their order."""
    found = list(dict.fromkeys(request.query_params.getlist("device_id")))
    if len(found) > MAX_DEVICES:
        raise invalid_parameter("device_id", f"may be given {MAX_DEVICES} times, not {len(found)}")
    return found


def limit(request: Request, most: int) -> int:
    """`limit`, 1 to `most`."""
    text = request.query_params.get("limit")
    if text is None:
        return min(DEFAULT_LIMIT, most)
    if not (re.fullmatch(r"\d{1,18}", text, re.ASCII) and 1 <= int(text) <= most):
        raise invalid_parameter("limit", f"must be a whole number from 1 to {most}")
    return int(text)


def is_descending(request: Request) -> bool:
    """Whether `order` asks for the newest first."""
    order = request.query_params.get("order", "asc")
    if order not in ("asc", "desc"):
        raise invalid_parameter("order", "must be asc or desc")
    return order == "desc"


def span(request: Request) -> tuple[int, int]:
    """`start` (inclusive) and `end` in µs since the epoch; a bare date as `end` includes that whole day."""
    return (
        instant(request, "start", EARLIEST_US, of_day_us=0),
        instant(request, "end", LATEST_US, of_day_us=DAY_US),
    )


def instant(request: Request, name: str, default_us: int, of_day_us: int) -> int:
    """One of the two ends of `span`."""
    text = request.query_params.get(name, "").strip()
    try:
        return moment_us(text, of_day_us) if text else default_us
    except RecordError as error:
        raise invalid_parameter(name, error.reason) from None


def moment_us(text: str, of_day_us: int) -> int:
    """µs of ISO 8601 (no zone: UTC), an epoch in s, or a date, to whose midnight `of_day_us` is added.

    Raises `RecordError`. No record lies before 2000 or after 2200: a moment there means the nearer end.
    """
    try:
        found = iso_us(text) + of_day_us if _DATE.fullmatch(text) else _instant_us(text)
    except ValueError:
        reason = "must be a date, a time like 2026-11-24T10:25:00Z, or an epoch in s"
        raise RecordError("timestamp", text, reason) from None
    return min(max(found, EARLIEST_US), LATEST_US)


def _instant_us(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        return iso_us(_LOST_PLUS.sub(r"\1+\2", text))
    number = min(max(float(text), 0.0), float(LATEST_US))
    return round(number * (1_000 if number >= EPOCH_MS_FROM else 1_000_000))


def cursor(request: Request) -> Position | None:
    """Where the last page ended."""
    text = request.query_params.get("cursor")
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,16})-(\d{1,16})", text, re.ASCII)
    if found is None:
        raise invalid_parameter("cursor", "must be the next_cursor of an earlier answer")
    return Position(int(found[1]), int(found[2]))


def place(request: Request) -> Place | None:
    """Where the last page ended, where objects are in the order of devices."""
    text = request.query_params.get("cursor")
    if not text:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise invalid_parameter("cursor", "must be the next_cursor of an earlier answer")
    return Place(found[2], int(found[1]))


def number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number from `least` to `most`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (_DECIMAL.fullmatch(text) and least <= float(text) <= most):
        raise invalid_parameter(name, f"must be a number from {least:g} to {most:g}")
    return float(text)
