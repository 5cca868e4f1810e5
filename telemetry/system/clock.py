"""The box's own clock, and when not to believe it: a Raspberry Pi boots in the past."""

from __future__ import annotations

import time
from collections.abc import Callable

from telemetry import RELEASE_DATE_US
from telemetry.codec.record_parser import Arrival
from telemetry.model.record import EARLIEST_US, LATEST_US

STEP_MS = 1_000
"""A clock that is so far behind what Redis has seen was set back, not merely read a moment earlier."""


SET_S = 60
"""A clock that runs ahead of the monotonic one by so much, or behind it, was set: drift is a second a day or two."""


def now_us() -> int:
    """µs since the epoch."""
    return time.time_ns() // 1_000


def now_ms() -> int:
    """ms since the epoch."""
    return time.time_ns() // 1_000_000


def problem(at_us: int, newest_ms: int) -> str | None:
    """Why the clock can't be right, or None. `newest_ms` is the newest arrival that the store knows."""
    if at_us < RELEASE_DATE_US:
        return "the box's clock is behind the date of this release: set it"
    if newest_ms > at_us // 1_000 + STEP_MS:
        return "the box's clock is behind the newest stored record: set it"
    return None


class Steady:
    """Whether the box's clock has run on by itself since the last look, or was set. The first look can't tell."""

    def __init__(self, now: Callable[[], int] = now_us, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now_us = now
        self._monotonic = monotonic
        self._offset_s: float | None = None

    def look(self) -> bool:
        """Look, and tell."""
        before_s, self._offset_s = self._offset_s, self._now_us() / 1_000_000 - self._monotonic()
        return before_s is not None and abs(self._offset_s - before_s) < SET_S


def arrival(
    at_us: int, newest_ms: int, max_future_seconds: int, speed_unit: str = "kmh", max_record_bytes: int = 2**20
) -> Arrival:
    """The moment of a message; nothing is too far ahead of a clock that can't be right.

    A clock that shows 1970 gives a record without a time of its own the earliest that a record may have.
    """
    latest_us = LATEST_US - 1 if problem(at_us, newest_ms) else at_us + max_future_seconds * 1_000_000
    now_us = min(max(at_us, EARLIEST_US), LATEST_US - 1)
    return Arrival(now_us, latest_us, speed_unit, max_record_bytes)
