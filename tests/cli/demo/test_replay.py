"""Telling a story: what was before at its own pace, what follows when it is due, dated as it is told."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from cli.demo import city, suez
from cli.demo.replay import BATCH_RECORDS, Dating, Remarks, Told, dating, live, parted, rows
from cli.demo.story import Remark, Report, Story

START_US = 1_800_000_000_000_000
"""2027-01-15T08:00:00Z"""


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sleeps = 0

    def elapsed_s(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 1
        self.sleeps += 1
        self.now_s += seconds


def report(at_s: float, device: str = "a") -> Report:
    return Report(at_s, {"device_id": device, "latitude": 30.0, "longitude": 32.5})


def story(reports: list[Report], *remarks: Remark) -> Story:
    return Story("a story", 1.0, None, lambda: iter(reports), remarks, str)


def times(told: Told) -> list[str]:
    return [json.loads(row.body)["timestamp"] for row in told.batch]


def test_what_was_before_is_parted_from_what_comes_and_nothing_is_lost() -> None:
    all_of_it = [report(at_s) for at_s in (-20.5, -1, 0, 0, 7)]
    before, later = parted(story(all_of_it))
    assert before == all_of_it[:2]
    assert list(later) == all_of_it[2:]


def test_only_what_was_before_is_taken_from_a_story_without_end() -> None:
    def endless() -> Iterator[Report]:
        return map(report, itertools.count(-3))

    before, later = parted(story([])._replace(reports=endless))
    assert [one.at_s for one in before] == [-3, -2, -1]
    assert [one.at_s for one in itertools.islice(later, 3)] == [0, 1, 2]


def test_history_keeps_its_pace_and_ends_at_the_start() -> None:
    found = [json.loads(row.body) for row in rows([report(-86_400), report(-0.5)], Dating(START_US, 1.0))]
    assert [one["timestamp"] for one in found] == ["2027-01-14T08:00:00.000Z", "2027-01-15T07:59:59.500Z"]
    assert [one["device_id"] for one in found] == ["a", "a"]


@pytest.mark.parametrize("speed", [1.0, 10.0, 300.0, 3_000.0])
def test_ships_keep_their_pace_however_fast_they_are_told_and_never_are_in_the_future(speed: float) -> None:
    dates = dating(suez.STORY, speed, START_US)
    reports = list(suez.reports())
    told_at = [max(report.at_s, 0) / speed for report in reports]
    dated_at = [_s(dates.of(report)) - START_US / 1_000_000 for report in reports]
    assert all(dated <= told + 0.001 for dated, told in zip(dated_at, told_at, strict=True))
    assert dated_at[-1] == pytest.approx(told_at[-1], abs=0.001)
    spans = [(a.at_s - b.at_s, x - y) for a, b, x, y in zip(reports[1:], reports, dated_at[1:], dated_at, strict=False)]
    assert all(was_s == pytest.approx(is_s, abs=0.002) for was_s, is_s in spans)


def test_a_story_without_an_end_is_dated_as_it_is_told() -> None:
    assert dating(city.STORY, 10.0, START_US) == Dating(START_US, 10.0)
    assert dating(suez.STORY, 0.5, START_US) == Dating(START_US, 0.5)


def _s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("speed", [1.0, 10.0, 300.0])
def test_records_are_told_when_they_are_due_and_dated_so(speed: float) -> None:
    clock = Clock()
    due_s = [0.0, 0.5, 0.52, 4.0, 9.75]
    told_at: dict[str, float] = {}
    coming = live([report(s * speed) for s in due_s], Dating(START_US, speed), speed, clock.elapsed_s, clock.sleep)
    for told in coming:
        assert told.at_s <= clock.now_s * speed + 1e-6
        told_at |= dict.fromkeys(times(told), clock.now_s)
    assert sorted(told_at) == [f"2027-01-15T08:00:{s:06.3f}Z" for s in due_s]
    for due, late in zip(due_s, sorted(told_at.values()), strict=True):
        assert due <= late <= due + 0.11
    assert clock.sleeps < 20


def test_the_clock_goes_on_while_nobody_reports() -> None:
    clock = Clock()
    at_s = [
        told.at_s for told in live([report(0), report(600)], Dating(START_US, 60.0), 60.0, clock.elapsed_s, clock.sleep)
    ]
    assert len(at_s) == 11
    assert at_s == sorted(at_s)


def test_who_is_late_sends_whole_batches() -> None:
    clock = Clock()
    sizes = [
        len(told.batch) for told in live([report(0)] * 1_200, Dating(START_US, 1.0), 1.0, clock.elapsed_s, clock.sleep)
    ]
    assert sizes == [BATCH_RECORDS, BATCH_RECORDS, 200]


def test_remarks_are_said_once_and_in_time() -> None:
    said: list[str] = []
    remarks = Remarks(story([], Remark(60, "later"), Remark(0, "first")), said.append)
    remarks.until(0)
    assert said == ["0: first"]
    remarks.until(59)
    remarks.until(61)
    remarks.until(100)
    assert said == ["0: first", "60: later"]


def test_the_city_has_two_hours_behind_it_and_no_end() -> None:
    before, later = parted(city.STORY)
    assert before[0].at_s == -7_200
    assert len(before) > 50_000
    coming = list(itertools.islice(later, 500))
    assert {one.fields["device_id"] for one in coming} <= {one.fields["device_id"] for one in before}
    assert all("timestamp" not in one.fields and one.at_s >= 0 for one in coming)
    assert city.clock(3_930) == "1:05:30"
