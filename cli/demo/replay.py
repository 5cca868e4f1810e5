"""A story told to a box: what was before at once, the rest as its clock goes.

The box and its page go by the time of day, so the story is moved there. A story with an end keeps its own pace and
ends as its telling does: its records are dated true to the second, and a fast one is told days of the past, ever
closer to now. One without an end, or slower than it happened, is dated as it is told. When it really happened is the
attribute `story_time`, where a story has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, takewhile
from typing import Any, NamedTuple

import msgspec

from cli.demo.story import Remark, Report, Story
from cli.sending.sender import Batch
from cli.sending.sources import Row
from cli.sending.vehicle_simulation import iso_ms

BATCH_RECORDS = 500
TICK_S = 0.1
"""What is due within so long is told together."""


class Dating(NamedTuple):
    """The dates of reports: second 0 of the story is at `start_us`, µs since epoch; its clock goes `pace` times as fast
    as ours.
    """

    start_us: int
    pace: float

    def of(self, report: Report) -> str:
        """The moment of a report, as JSON has it."""
        return iso_ms(self.start_us + round(report.at_s / self.pace * 1_000_000))


def dating(story: Story, speed: float, now_us: int) -> Dating:
    """The dates of a story whose live part is told from now on, `speed` times as fast as it happened.

    None lies in the future. Compressed dates would have ships go as many times faster than ships do.
    """
    if story.length_s is None or speed <= 1:
        return Dating(now_us, speed)
    early_s = story.length_s - story.length_s / speed
    return Dating(now_us - round(early_s * 1_000_000), 1.0)


class Told(NamedTuple):
    """Records that are due, and how late it is in the story."""

    at_s: float
    batch: Batch


def parted(story: Story) -> tuple[list[Report], Iterator[Report]]:
    """What was before the story is looked at, and what comes then."""
    coming = story.reports()
    later: list[Report] = []

    def is_before(report: Report) -> bool:
        if report.at_s >= 0:
            later.append(report)
        return report.at_s < 0

    before = list(takewhile(is_before, coming))
    return before, chain(later, coming)


def rows(reports: Iterable[Report], dates: Dating) -> Iterator[Row]:
    """Reports as records."""
    for number, report in enumerate(reports, 1):
        yield Row(number, msgspec.json.encode({**report.fields, "timestamp": dates.of(report)}))


def live(
    reports: Iterable[Report],
    dates: Dating,
    speed: float,
    elapsed_s: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Told]:
    """Hold each report back until it is due, `elapsed_s` being how long ago the live part began.

    What it yields may hold no record: the story's clock goes on although nobody reports.
    """
    due: list[Report] = []
    for report in reports:
        while (wait_s := report.at_s / speed - elapsed_s()) > 0:
            yield Told(elapsed_s() * speed, list(rows(due, dates)))
            due = []
            sleep(min(max(wait_s, TICK_S), 1.0))
        due.append(report)
        if len(due) == BATCH_RECORDS:
            yield Told(report.at_s, list(rows(due, dates)))
            due = []
    if due:
        yield Told(due[-1].at_s, list(rows(due, dates)))


class Remarks:
    """The sentences of a story, each said once when it is due."""

    def __init__(self, story: Story, say: Callable[[str], Any]) -> None:
        self._left: list[Remark] = sorted(story.remarks)
        self._clock = story.clock
        self._say = say

    def until(self, at_s: float) -> None:
        """Say what is due by then."""
        while self._left and self._left[0].at_s <= at_s:
            remark = self._left.pop(0)
            self._say(f"{self._clock(remark.at_s)}: {remark.sentence}")
