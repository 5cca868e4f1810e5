"""A story told to a box: what was before at once, the rest as its clock goes.

The box and its page go by the time of day, so the story is moved there. What was before it is looked at keeps its own
pace and ends now: the history of the days before now is true to the second. From then on the story's clock goes `speed`
times as fast as ours, and each record carries the moment of our clock at which it is told: a ship that reported twelve
minutes ago did so 2.4 s ago at speed 300. Where it really was when is the attribute `story_time`, where a story has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, takewhile
from typing import Any, NamedTuple

import msgspec

from cli.delivery import Batch
from cli.demo.story import Remark, Report, Story
from cli.sources import Row
from cli.traffic import iso_ms

BATCH_RECORDS = 500
TICK_S = 0.1
"""What is due within so long is told together."""


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


def rows(reports: Iterable[Report], start_us: int, speed: float) -> Iterator[Row]:
    """Records whose second 0 is at `start_us`, µs since epoch, and whose clock goes `speed` times as fast as ours."""
    for number, report in enumerate(reports, 1):
        time = iso_ms(start_us + round(report.at_s / speed * 1_000_000))
        yield Row(number, msgspec.json.encode({**report.fields, "timestamp": time}))


def live(
    reports: Iterable[Report],
    start_us: int,
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
            yield Told(elapsed_s() * speed, list(rows(due, start_us, speed)))
            due = []
            sleep(min(max(wait_s, TICK_S), 1.0))
        due.append(report)
        if len(due) == BATCH_RECORDS:
            yield Told(report.at_s, list(rows(due, start_us, speed)))
            due = []
    if due:
        yield Told(due[-1].at_s, list(rows(due, start_us, speed)))


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
