"""Plans compaction and retention: which files to rewrite into fewer, and which days to delete. Pure computation.

A past day has one file, or pieces of about `target_bytes`, sorted. The current day never has more than `max_open_files`
small files: once it has five sixths of them, the smallest half or more are merged, as long as the next file is not
larger than the ones before it together. Files therefore grow in steps, and a record is rewritten two to four times on
its first day, however small the saves are.

Devices with wrong clocks create days in the past and the future, which are treated as past days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from telemetry.archive.data_files import LiveFile

SMALL_PART = 0.5
"""A file below this fraction of `target_bytes` is small. Pieces rarely are, so that rewriting ends."""

SMALL_FILES = 8
"""Number of small files of a past day that are merged immediately; fewer wait until the day is unchanged for a
while."""

REWRITE_TARGETS = 4
"""Maximum size of a rewrite, in units of `target_bytes`, so that it takes seconds."""

REWRITE_FILES = 128
"""Maximum number of files in a rewrite, all of them open; further files follow in the next rewrite."""


class Limits(NamedTuple):
    """Limits on number and size of files, and retention of days (0 = for ever)."""

    target_bytes: int = 128 * 2**20
    max_open_files: int = 24
    quiet_s: float = 3_600
    retention_days: int = 0
    retention_max_bytes: int = 0


class Rewrite(NamedTuple):
    """Files of a day to merge into `pieces` new ones."""

    day: date
    files: tuple[LiveFile, ...]
    pieces: int


def rewrites(
    files: Iterable[LiveFile], today: date, now_ms: int, limits: Limits, after: date = date.min
) -> list[Rewrite]:
    """All rewrites that are due: first of the current day, then of the day before, then of the days following `after`.

    With the day of the last rewrite as `after`, days take turns: thousands of small days cannot block others.
    """
    days: dict[date, list[LiveFile]] = defaultdict(list)
    for file in files:
        if file.size_bytes < limits.target_bytes * SMALL_PART:
            days[file.day].append(file)
    due = []
    for day, small in sorted(days.items(), key=lambda item: _turn(item[0], today, after)):
        chosen = _of_open_day(small, limits) if day == today else _of_day_over(small, now_ms, limits)
        if chosen:
            size_bytes = sum(file.size_bytes for file in chosen)
            due.append(Rewrite(day, tuple(chosen), max(1, round(size_bytes / limits.target_bytes))))
    return due


def _turn(day: date, today: date, after: date) -> tuple[bool, bool, bool, date]:
    return day != today, (today - day).days != 1, day <= after, day


def _of_open_day(small: Sequence[LiveFile], limits: Limits) -> list[LiveFile]:
    if len(small) < max(limits.max_open_files * 5 // 6, 2):
        return []
    ordered = _smallest_first(small)
    chosen, size_bytes = ordered[:1], ordered[0].size_bytes
    for file in ordered[1:REWRITE_FILES]:
        is_enough = len(chosen) >= limits.max_open_files // 2 and file.size_bytes > size_bytes
        if is_enough or size_bytes >= limits.target_bytes:
            break
        chosen.append(file)
        size_bytes += file.size_bytes
    return chosen


def _of_day_over(small: Sequence[LiveFile], now_ms: int, limits: Limits) -> list[LiveFile]:
    if len(small) < 2:
        return []
    quiet_ms = min(abs(now_ms - file.made_ms) for file in small)  # a clock that was set back does not matter
    if len(small) < SMALL_FILES and quiet_ms < limits.quiet_s * 1_000:
        return []
    chosen: list[LiveFile] = []
    size_bytes = 0
    for file in _smallest_first(small)[:REWRITE_FILES]:
        size_bytes += file.size_bytes
        if len(chosen) >= 2 and size_bytes > REWRITE_TARGETS * limits.target_bytes:
            break
        chosen.append(file)
    return chosen


def _smallest_first(files: Iterable[LiveFile]) -> list[LiveFile]:
    return sorted(files, key=lambda file: (file.size_bytes, file.path))


def expired(files: Iterable[LiveFile], today: date, limits: Limits) -> list[date]:
    """The oldest days beyond retention, by age or because the archive is too large."""
    sizes: dict[date, int] = defaultdict(int)
    for file in files:
        sizes[file.day] += file.size_bytes
    total, days = sum(sizes.values()), []
    for day in sorted(sizes):
        is_old = 0 < limits.retention_days <= (today - day).days
        is_too_much = 0 < limits.retention_max_bytes < total
        if day >= today or not (is_old or is_too_much):
            break
        total -= sizes[day]
        days.append(day)
    return days
