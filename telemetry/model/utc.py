"""Days and moments in UTC, as µs since the epoch, and the one text of moments that all JSON has."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

TimeText = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""A moment as `iso` writes it: 2026-11-24T10:25:00.000000Z."""

SQL_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
"""The same, for `strftime` of Python and DuckDB."""

_EPOCH = datetime(1970, 1, 1)
"""In UTC; without a zone it is written in half of the time."""

_SECONDS = [f"{minute:02d}:{second:02d}" for minute in range(60) for second in range(60)]
"""Texts of the seconds of an hour."""


def day_of(timestamp_us: int) -> date:
    """The UTC day of a moment."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=timestamp_us)).date()


def day_us(day: date) -> int:
    """The moment at which a UTC day begins, µs since the epoch."""
    return (day - date(1970, 1, 1)).days * DAY_US


def iso(timestamp_us: int) -> str:
    """2026-11-24T10:25:00.000000Z of µs since the epoch, for programs: there are always six digits of fraction, because
    some readers guess the form of all times by the first one. Texts sort as moments."""
    hour, rest_us = divmod(timestamp_us, HOUR_US)
    second, fraction = divmod(rest_us, 1_000_000)
    return f"{_hour(hour)}{_SECONDS[second]}.{fraction:06d}Z"


def to_second(time: TimeText) -> str:
    """2026-11-24T10:25:00Z, without the fraction, for people."""
    return f"{time[:19]}Z"


@lru_cache(4_096)
def _hour(hour: int) -> str:
    """2026-11-24T10: of hours since the epoch; half a year of them is cached."""
    return (_EPOCH + timedelta(hours=hour)).isoformat()[:14]
