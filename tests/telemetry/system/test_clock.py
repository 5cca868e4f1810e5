"""The box's own clock, and what a record gets from one that can't be right."""

from __future__ import annotations

import time

import pytest

from telemetry import RELEASE_DATE_US
from telemetry.codec.record_parser import Arrival, read
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, LATEST_US, decode, encode
from telemetry.system import clock

NOW_US = RELEASE_DATE_US + 3_600_000_000
NOW_MS = NOW_US // 1_000
DAY_S = 86_400


def timestamp_of(value: object, arrival: Arrival) -> int:
    fields = {"device_id": "d"} if value is None else {"device_id": "d", "timestamp": value}
    sent = read(fields, "http", "json", arrival)
    return decode(encode(sent.record)).timestamp_us


def test_the_time_is_that_of_the_system() -> None:
    assert abs(clock.now_us() - time.time() * 1e6) < 5e6
    assert abs(clock.now_ms() - time.time() * 1e3) < 5e3


@pytest.mark.parametrize(
    ("at_us", "newest_ms", "wrong"),
    [
        (NOW_US, 0, None),
        (NOW_US, NOW_MS, None),
        (NOW_US, NOW_MS + clock.STEP_MS, None),
        (NOW_US, NOW_MS + clock.STEP_MS + 1, "newest stored record"),
        (RELEASE_DATE_US, 0, None),
        (RELEASE_DATE_US - 1, 0, "date of this release"),
        (0, 0, "date of this release"),
    ],
)
def test_when_the_clock_can_not_be_right(at_us: int, newest_ms: int, wrong: str | None) -> None:
    found = clock.problem(at_us, newest_ms)
    assert (found is None) == (wrong is None)
    assert wrong is None or wrong in str(found)


def test_an_arrival_carries_what_holds_for_its_records() -> None:
    assert clock.arrival(NOW_US, NOW_MS, DAY_S, "knots", 100) == (NOW_US, NOW_US + DAY_S * 1_000_000, "knots", 100)


def test_the_future_is_limited_by_a_clock_that_can_be_right() -> None:
    arrival = clock.arrival(NOW_US, 0, DAY_S)
    assert timestamp_of(NOW_US // 1_000_000 + DAY_S, arrival) == NOW_US + DAY_S * 1_000_000
    with pytest.raises(RecordError, match="ahead"):
        timestamp_of(NOW_US // 1_000_000 + DAY_S + 1, arrival)


@pytest.mark.parametrize(("at_us", "newest_ms"), [(0, 0), (RELEASE_DATE_US - 1, 0), (NOW_US, NOW_MS + 10_000)])
def test_a_clock_that_is_behind_limits_no_future(at_us: int, newest_ms: int) -> None:
    arrival = clock.arrival(at_us, newest_ms, DAY_S)
    assert timestamp_of("2199-12-31T23:59:59.999999Z", arrival) == LATEST_US - 1
    with pytest.raises(RecordError, match="between"):
        timestamp_of("2200-01-01", arrival)


@pytest.mark.parametrize(
    ("at_us", "timestamp_us"),
    [(NOW_US, NOW_US), (0, EARLIEST_US), (-1, EARLIEST_US), (LATEST_US, LATEST_US - 1), (2**62, LATEST_US - 1)],
)
def test_a_record_without_a_time_can_rest_whatever_the_clock_shows(at_us: int, timestamp_us: int) -> None:
    assert timestamp_of(None, clock.arrival(at_us, 0, DAY_S)) == timestamp_us


def test_whether_the_clock_was_set() -> None:
    shows = {"now": NOW_US, "monotonic": 100.0}
    steady = clock.Steady(lambda: int(shows["now"]), lambda: shows["monotonic"])

    def look(passed_s: float, set_by_s: float = 0) -> bool:
        shows["monotonic"] += passed_s
        shows["now"] += int((passed_s + set_by_s) * 1_000_000)
        return steady.look()

    assert not look(0), "there was no look before"
    assert look(600)
    assert look(600, set_by_s=1)
    assert not look(600, set_by_s=12 * 365 * 86_400)
    assert look(600), "it runs on, wherever it stands"
    assert not look(600, set_by_s=-3_600)
    assert look(0)
