"""Limit of the old days that one device's records may touch per hour, because a save writes a file for each day.

Days around now (`NEAR_DAYS`) are free, so usual records cost one comparison of their timestamps. Each process counts
separately, in memory, and stores a limited number of days: beyond it the device counted longest ago is forgotten.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from telemetry.model.errors import TooManyDays
from telemetry.model.record import Sent
from telemetry.model.utc import DAY_US

NEAR_DAYS = 1
"""Days before and after today that are not counted, for other time zones and clocks that are slightly wrong."""

HOUR_S = 3_600.0

MOST_REMEMBERED = 50_000
"""Maximum number of stored days of all devices, 27 MB if each device has one."""


class _Hour(NamedTuple):
    """Old days of a device since `begun_s`."""

    begun_s: float
    days: set[int]


class DeviceDays:
    """Counts old days of devices. `most` of each are allowed per hour from its first; 0 = no limit."""

    def __init__(self, most: int, now_us: Callable[[], int], monotonic_s: Callable[[], float]) -> None:
        self._most = most
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._hours: OrderedDict[str, _Hour] = OrderedDict()
        self._remembered = 0

    def excess(self, records: Sequence[Sent]) -> TooManyDays | None:
        """Count the days of a request's records. If they are too many, counts none and returns why."""
        if not self._most or not records:
            return None
        today = self._now_us() // DAY_US
        first_us, end_us = (today - NEAR_DAYS) * DAY_US, (today + NEAR_DAYS + 1) * DAY_US
        times_us = [sent.record.timestamp_us for sent in records]
        if first_us <= min(times_us) and max(times_us) < end_us:
            return None
        old: defaultdict[str, set[int]] = defaultdict(set)
        for sent, timestamp_us in zip(records, times_us, strict=True):
            if not first_us <= timestamp_us < end_us:
                old[sent.device_id].add(timestamp_us // DAY_US)
        return self._count(old)

    def _count(self, old: Mapping[str, set[int]]) -> TooManyDays | None:
        now_s = self._monotonic_s()
        self._forget(now_s)
        for device_id, days in old.items():
            hour = self._hours.get(device_id)
            known = hour.days if hour else set()
            if len(known | days) > self._most:
                begun_s = hour.begun_s if hour else now_s
                return self._too_many(device_id, len(days), max(1, math.ceil(begun_s + HOUR_S - now_s)))
        for device_id, days in old.items():
            hour = self._hours.setdefault(device_id, _Hour(now_s, set()))
            self._remembered += len(days - hour.days)
            hour.days.update(days)
        return None

    def _forget(self, now_s: float) -> None:
        """Forget expired hours, and the oldest beyond the maximum."""
        while self._hours:
            device_id, hour = next(iter(self._hours.items()))
            if now_s < hour.begun_s + HOUR_S and self._remembered <= MOST_REMEMBERED:
                break
            self._remembered -= len(hour.days)
            del self._hours[device_id]

    def _too_many(self, device_id: str, days: int, wait_s: int) -> TooManyDays:
        limit = f"limits.device_days_per_hour is {self._most}"
        if days > self._most:
            reason = f"cannot store records of {days} past days of device {device_id} at once: {limit}; send fewer"
        else:
            reason = f"cannot store more past days of device {device_id} now: {limit}; try again in {wait_s} s"
        return TooManyDays(reason, wait_s)
