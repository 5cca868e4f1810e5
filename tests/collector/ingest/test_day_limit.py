"""Limit of past days that a device may send in an hour."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from collector.ingest import day_limit
from collector.ingest.day_limit import DeviceDays
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US

NOW_US = 1_795_500_000_000_000


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def sent(days_ago: Sequence[int], device: str = "a") -> list[Sent]:
    return [Sent(device, Record(NOW_US - ago * DAY_US, "http", "json")) for ago in days_ago]


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def days(clock: Hands) -> DeviceDays:
    """Five days an hour."""
    return DeviceDays(5, lambda: NOW_US, clock)


def test_days_around_now_are_free(days: DeviceDays) -> None:
    for _ in range(100):
        assert days.excess(sent([-1, 0, 1])) is None
    assert not days._hours, "nothing is remembered of them"


def test_past_days_are_counted_once(days: DeviceDays) -> None:
    for _ in range(20):
        assert days.excess(sent([2, 3, 4, 5, 6])) is None
    excess = days.excess(sent([0, 7]))
    assert excess is not None
    assert excess.retry_after_s == 3_600
    assert str(excess) == (
        "cannot store more past days of device a now: limits.device_days_per_hour is 5; try again in 3600 s"
    )
    assert days.excess(sent([0, 6])) is None, "nothing was counted of what was refused"
    assert days.excess(sent([7], "b")) is None, "others are not concerned"


def test_after_an_hour_there_is_room_again(days: DeviceDays, clock: Hands) -> None:
    assert days.excess(sent(range(2, 7))) is None
    clock.now_s += 3_000
    excess = days.excess(sent([7]))
    assert excess is not None
    assert excess.retry_after_s == 600
    clock.now_s += 600
    assert days.excess(sent([7])) is None
    assert len(days._hours["a"].days) == 1


def test_a_request_with_more_days_than_an_hour_may_have_is_told_to_send_fewer(days: DeviceDays) -> None:
    excess = days.excess(sent(range(2, 8)))
    assert excess is not None
    assert "6 past days of device a at once" in str(excess)
    assert "send fewer" in str(excess)


def test_of_a_request_with_one_device_too_many_none_is_counted(days: DeviceDays) -> None:
    assert days.excess([*sent([2], "b"), *sent(range(2, 8))]) is not None
    assert not days._hours


def test_future_days_count_where_settings_let_them_in(days: DeviceDays) -> None:
    assert days.excess(sent([-2, -3, -4, -5, -6])) is None
    assert days.excess(sent([-7])) is not None


def test_what_is_remembered_is_bounded(days: DeviceDays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_limit, "MOST_REMEMBERED", 20)
    for number in range(100):
        assert days.excess(sent(range(2, 7), f"d{number}")) is None
        assert days._remembered == sum(len(hour.days) for hour in days._hours.values()) <= 25


def test_zero_is_no_limit(clock: Hands) -> None:
    off = DeviceDays(0, lambda: NOW_US, clock)
    assert off.excess(sent(range(2, 3_000))) is None
    assert not off._hours
