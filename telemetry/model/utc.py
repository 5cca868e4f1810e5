"""Days and moments in UTC, as µs since the epoch."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

DAY_US = 86_400_000_000


def day_of(timestamp_us: int) -> date:
    """The UTC day of a moment."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=timestamp_us)).date()


def day_us(day: date) -> int:
    """The moment at which a UTC day begins, µs since the epoch."""
    return (day - date(1970, 1, 1)).days * DAY_US


def iso(timestamp_us: int) -> str:
    """2026-11-24T10:25:00.000000Z of µs since the epoch."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=timestamp_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
