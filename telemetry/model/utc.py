"""UTC days and times, as µs since the epoch and in the text format of all JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

TimeText = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""Text format of `iso`: 2026-11-24T10:25:00.000000Z."""

SQL_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
"""The same as a format for `strftime` of Python and DuckDB."""

_EPOCH = datetime(1970, 1, 1)
"""In UTC, but naive, because formatting is faster."""

_SECONDS = [f"{minute:02d}:{second:02d}" for minute in range(60) for second in range(60)]
"""Texts of the seconds of an hour."""


def day_of(timestamp_us: int) -> date:
    """The UTC day of a timestamp."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=timestamp_us)).date()


def day_us(day: date) -> int:
    """The start of a UTC day, µs since the epoch."""
    return (day - date(1970, 1, 1)).days * DAY_US


def iso(timestamp_us: int) -> str:
    """Format µs since the epoch as 2026-11-24T10:25:00.000000Z, for programs. The fraction has six digits, because
    some readers derive the format of all times from the first one. Texts sort by time.
    """
    hour, rest_us = divmod(timestamp_us, HOUR_US)
    second, fraction = divmod(rest_us, 1_000_000)
    return f"{_hour(hour)}{_SECONDS[second]}.{fraction:06d}Z"


def to_second(time: TimeText) -> str:
    """The time without its fraction, for people: 2026-11-24T10:25:00Z."""
    return f"{time[:19]}Z"


@lru_cache(4_096)
def _hour(hour: int) -> str:
    """Format hours since the epoch as 2026-11-24T10: with a cache for half a year."""
    return (_EPOCH + timedelta(hours=hour)).isoformat()[:14]
