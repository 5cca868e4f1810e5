"""The budget of one save: limits on records, bytes, devices and days, and the share of one device.

Days around now (`OPEN_DAYS`) do not count towards the limit on days, so old dates never block current records.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from telemetry.config.settings import Persist
from telemetry.model.record import Row
from telemetry.model.utc import DAY_US

OPEN_DAYS = 1
"""Number of days before and after today whose files a save may write in addition to `max_days`."""

MOST_SHARES = 16
"""Minimum number of shares of a save's records and bytes: one device takes at most one until all others were served, or
more if there are fewer devices."""

DAY_SHARES = 4
"""Number of shares of a save's old days: one device takes at most one until all others were served."""


class Bounds(NamedTuple):
    """Maximum records, bytes, devices and old days of one save."""

    max_records: int = 200_000
    max_bytes: int = 64 * 2**20
    max_devices: int = 50_000
    max_days: int = 64

    @classmethod
    def of(cls, persist: Persist) -> Bounds:
        """The bounds of the settings."""
        return cls(persist.max_records, persist.max_bytes, persist.max_devices, persist.max_days)


class Share(NamedTuple):
    """Limit of one device until all others were served; its first entry always fits."""

    records: int
    size_bytes: int
    days: int

    @classmethod
    def of(cls, bounds: Bounds, devices: int) -> Share:
        """An equal share for each of `devices`, with a minimum so that streams are not read many times."""
        parts = min(max(devices, 1), MOST_SHARES)
        return cls(bounds.max_records // parts, bounds.max_bytes // parts, max(bounds.max_days // DAY_SHARES, 1))


class Fit(Enum):
    """The result of an attempt to take an entry: it fits, or the limit that it exceeds."""

    TAKEN, SPENT, DAYS, SHARE = range(4)


class _Used(NamedTuple):
    """Usage of one device's share."""

    device_id: str
    records: int = 0
    bytes: int = 0
    days: int = 0


class Budget:
    """The rest of a save's bounds. The first entry always fits, and so does the first with old days: otherwise
    saving could stop for good.

    `share` limits each device until it is set to None.
    """

    def __init__(self, bounds: Bounds, today: int, share: Share | None) -> None:
        self.share = share
        self.is_spent = False
        self.has_no_days = False
        """True after an entry found no room for its days."""

        self._bounds = bounds
        self._open = frozenset(range(today - OPEN_DAYS, today + OPEN_DAYS + 1))
        self._records = 0
        self._bytes = 0
        self._days: set[int] = set()
        self._used = _Used("")

    def take(self, device_id: str, size_bytes: int, rows: Sequence[Row]) -> Fit:
        """Take one entry if it fits."""
        added = self._added(rows)
        fit = self._fit(device_id, size_bytes, len(rows), len(added))
        self.is_spent = self.is_spent or fit is Fit.SPENT
        self.has_no_days = self.has_no_days or (fit is Fit.DAYS and self._are_days_short(len(added)))
        if fit is Fit.TAKEN:
            self._spend(size_bytes, len(rows), added)
            self._count(device_id, size_bytes, len(rows), len(added))
        return fit

    def take_all(
        self, devices: Sequence[str], sizes_bytes: Sequence[int], counts: Sequence[int], rows: Sequence[Row]
    ) -> bool:
        """Take pages of entries, one device each, if they are far from every limit; otherwise take them one by one."""
        added, size_bytes = self._added(rows), sum(sizes_bytes)
        most_days = self._bounds.max_days if self.share is None else self.share.days
        if not self._has_room(size_bytes, len(rows)) or (added and len(self._days) + len(added) > most_days):
            return False
        if not self._are_within_shares(devices, sizes_bytes, counts, len(added)):
            return False
        self._spend(size_bytes, len(rows), added)
        return True

    def _are_within_shares(
        self, devices: Sequence[str], sizes_bytes: Sequence[int], counts: Sequence[int], days: int
    ) -> bool:
        """True if each device stays within its share; then the pages are counted."""
        share, before = self.share, self._used
        if share is None:
            return True
        if before.records + sum(counts) > share.records or before.bytes + sum(sizes_bytes) > share.size_bytes:
            for device_id, size_bytes, count in zip(devices, sizes_bytes, counts, strict=True):
                if not self._is_within_share(device_id, size_bytes, count):
                    self._used = before
                    return False
                self._count(device_id, size_bytes, count, days)
            return True
        last = [at for at, device_id in enumerate(devices) if device_id == devices[-1]]
        self._count(devices[-1], sum(sizes_bytes[at] for at in last), sum(counts[at] for at in last), days)
        return True

    def _fit(self, device_id: str, size_bytes: int, records: int, days: int) -> Fit:
        if self._bytes > 0 and not self._has_room(size_bytes, records):
            return Fit.SPENT
        if self._are_days_short(days):
            return Fit.DAYS
        used, share = self._used_by(device_id), self.share
        if share is None or used.bytes == 0:
            return Fit.TAKEN
        if days and used.days and used.days + days > share.days:
            return Fit.DAYS
        return Fit.TAKEN if self._is_within_share(device_id, size_bytes, records) else Fit.SHARE

    def has_had_share(self, device_id: str) -> bool:
        """True if a device has used its share."""
        used, share = self._used_by(device_id), self.share
        return share is not None and (used.records >= share.records or used.bytes >= share.size_bytes)

    def _added(self, rows: Sequence[Row]) -> set[int]:
        """The old days that records would add."""
        return days_of_rows(rows) - self._open - self._days

    def _are_days_short(self, added: int) -> bool:
        return bool(added and self._days and len(self._days) + added > self._bounds.max_days)

    def _has_room(self, size_bytes: int, records: int) -> bool:
        return (
            self._records + records <= self._bounds.max_records and self._bytes + size_bytes <= self._bounds.max_bytes
        )

    def _is_within_share(self, device_id: str, size_bytes: int, records: int) -> bool:
        used, share = self._used_by(device_id), self.share
        return share is None or (
            used.records + records <= share.records and used.bytes + size_bytes <= share.size_bytes
        )

    def _used_by(self, device_id: str) -> _Used:
        """Usage of a device. A device's entries are consecutive, so only the last device is stored."""
        return self._used if self._used.device_id == device_id else _Used(device_id)

    def _count(self, device_id: str, size_bytes: int, records: int, days: int) -> None:
        used = self._used_by(device_id)
        self._used = _Used(device_id, used.records + records, used.bytes + size_bytes, used.days + days)

    def _spend(self, size_bytes: int, records: int, days: set[int]) -> None:
        self._records += records
        self._bytes += size_bytes
        self._days |= days
        self.is_spent = (
            self.is_spent or self._records >= self._bounds.max_records or self._bytes >= self._bounds.max_bytes
        )


def days_of_rows(rows: Sequence[Row]) -> set[int]:
    """The days of records, since the epoch; faster if all are of one date."""
    if not rows:
        return set()
    times_us = [row[1] for row in rows]
    first, last = min(times_us) // DAY_US, max(times_us) // DAY_US
    return {first} if first == last else {timestamp_us // DAY_US for timestamp_us in times_us}
