"""Time ranges in which a page is looked for, those with its first records first, so that few of many files are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from api.snapshot.snapshot import Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.model.utc import DAY_US, day_us

FIRST_FILES = 64
"""Files that the first range reads at most, unless one day has more: 15 ms in DuckDB, even if each has one record."""

GROWTH = 4
"""The next range may read so many times as many: if records are rare, everything costs a third more than in one go."""


def ranges(files: Sequence[LiveFile], wanted: Wanted, is_descending: bool) -> Iterator[Wanted]:
    """Ranges that together are that of `wanted`, none twice, in the order of a page's timestamps.

    They are cut between days, for the records of a file are all of one.
    """
    counts = Counter(file.day for file in files)
    most, count = FIRST_FILES, 0
    for day in sorted(counts, reverse=is_descending):
        if count and count + counts[day] > most:
            first, wanted = _cut(wanted, day_us(day), is_descending)
            yield first
            most, count = most * GROWTH, 0
        count += counts[day]
    yield wanted


def _cut(wanted: Wanted, day_us: int, is_descending: bool) -> tuple[Wanted, Wanted]:
    """What comes before a day in the order of the page, and the day with all behind it."""
    if is_descending:
        end_us = day_us + DAY_US
        return wanted._replace(start_us=end_us), wanted._replace(end_us=end_us)
    return wanted._replace(end_us=day_us), wanted._replace(start_us=day_us)
