"""The box's clock, and checks whether it can be right: a Raspberry Pi boots with a time in the past."""

from __future__ import annotations

import time
from collections.abc import Callable

from telemetry import RELEASE_DATE_US
from telemetry.codec.record_parser import Arrival
from telemetry.model.record import EARLIEST_US, LATEST_US

STEP_MS = 1_000
"""Lag against the newest arrival in Redis, ms, beyond which the clock was set back and not only read earlier."""


SET_S = 60
"""Drift against the monotonic clock, s, beyond which the clock was set: real drift is a second in a day or two."""


def now_us() -> int:
    """µs since the epoch."""
    return time.time_ns() // 1_000


def now_ms() -> int:
    """ms since the epoch."""
    return time.time_ns() // 1_000_000


def problem(at_us: int, newest_ms: int) -> str | None:
    """Why the clock cannot be right, or None. `newest_ms` is the newest arrival in the store, ms since epoch."""
    if at_us < RELEASE_DATE_US:
        return "the box's clock is behind the date of this release: set it"
    if newest_ms > at_us // 1_000 + STEP_MS:
        return "the box's clock is behind the newest stored record: set it"
    return None


class Steady:
    """Detects whether the box's clock was set since the last check. The first check cannot detect it."""

    def __init__(self, now: Callable[[], int] = now_us, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now_us = now
        self._monotonic = monotonic
        self._offset_s: float | None = None

    def look(self) -> bool:
        """True if the clock was not set since the last check."""
        before_s, self._offset_s = self._offset_s, self._now_us() / 1_000_000 - self._monotonic()
        return before_s is not None and abs(self._offset_s - before_s) < SET_S


def arrival(
    at_us: int, newest_ms: int, max_future_seconds: int, speed_unit: str = "kmh", max_record_bytes: int = 2**20
) -> Arrival:
    """The arrival of a message. While the clock cannot be right, timestamps have no upper limit.

    With a clock at 1970, a record without a timestamp gets the minimum timestamp of a record.
    """
    latest_us = LATEST_US - 1 if problem(at_us, newest_ms) else at_us + max_future_seconds * 1_000_000
    now_us = min(max(at_us, EARLIEST_US), LATEST_US - 1)
    return Arrival(now_us, latest_us, speed_unit, max_record_bytes)
