"""The record: the bytes it rests as, and which of two is a device's latest."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.model.record import EARLIEST_US, LATEST_US, Record, decode, decode_rows, encode, replaces

to_msgpack = msgspec.msgpack.encode
from_msgpack = msgspec.msgpack.decode

NOW_MS = 1_795_500_000_000
NOW_US = NOW_MS * 1_000
HOUR_MS = 3_600_000

FULL = Record(NOW_US, "tcp", "json", 53.4, -2.98, 12.0, 60.0, 359.9, 3.0, "Lime Street", '{"fuel":7}')


def test_a_record_rests_as_one_array_the_layout_first() -> None:
    assert from_msgpack(encode(FULL)) == [
        1,
        NOW_US,
        "tcp",
        "json",
        53.4,
        -2.98,
        12.0,
        60.0,
        359.9,
        3.0,
        "Lime Street",
        '{"fuel":7}',
    ]
    assert decode(encode(FULL)) == FULL


def test_a_whole_number_stays_a_double() -> None:
    assert b"\xcb\x40\x4e\x00\x00\x00\x00\x00\x00" in encode(FULL), "60.0 must not become 60"


def test_many_rest_in_one_array() -> None:
    rows = decode_rows(to_msgpack([from_msgpack(encode(FULL))] * 3))
    assert [Record(*row[1:]) for row in rows] == [FULL] * 3


@pytest.mark.parametrize(
    "values",
    [
        [2, NOW_US, "tcp", "json"],
        [NOW_US, "tcp", "json"],
        [1, EARLIEST_US - 1, "tcp", "json"],
        [1, LATEST_US, "tcp", "json"],
        [1, str(NOW_US), "tcp", "json"],
        [1, NOW_US, "tcp", "json", "53.4"],
        {"timestamp_us": NOW_US},
    ],
)
def test_what_is_no_record_is_not_decoded(values: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(to_msgpack(values))


def test_a_fix_has_both_coordinates() -> None:
    assert FULL.has_fix
    for latitude, longitude in ((None, None), (1.0, None), (None, 1.0)):
        assert not Record(NOW_US, "tcp", "json", latitude, longitude).has_fix
    assert Record(NOW_US, "tcp", "json", 0.0, 0.0).has_fix


# The rule of the latest ------------------------------------------------------------------------------


class Arrived:
    """A record as the rule sees it: the device's time and the box's, this one in whole ms."""

    def __init__(self, timestamp_us: int, arrival_ms: int) -> None:
        self.timestamp_us = timestamp_us
        self.arrival_ms = arrival_ms

    @property
    def timestamp_ms(self) -> int:
        return self.timestamp_us // 1_000

    @property
    def came_from_the_future(self) -> bool:
        return self.timestamp_ms > self.arrival_ms

    def is_after_the_arrival_of(self, other: Arrived) -> bool:
        return self.timestamp_ms > other.arrival_ms


def wins(new: Arrived, old: Arrived) -> bool:
    """The rule as the design says it."""
    return new.timestamp_us >= old.timestamp_us or (not new.came_from_the_future and new.is_after_the_arrival_of(old))


times_us = st.integers(-3_000, 3_000).map(lambda us: NOW_US + us) | st.integers(EARLIEST_US, LATEST_US - 1)
times_ms = st.integers(-3, 3).map(lambda ms: NOW_MS + ms) | st.integers(EARLIEST_US // 1_000, LATEST_US // 1_000)
arrived = st.builds(Arrived, times_us, times_ms)


@given(arrived, arrived)
def test_replaces_agrees_with_the_rule(new: Arrived, old: Arrived) -> None:
    assert replaces(new.timestamp_us, new.arrival_ms, old.timestamp_us, old.arrival_ms) == wins(new, old)


@given(st.integers(0, HOUR_MS), st.integers(1, HOUR_MS), st.integers(0, HOUR_MS))
def test_a_late_record_never_wins_while_clocks_are_right(ago_ms: int, later_ms: int, late_ms: int) -> None:
    """The latest was at most `ago_ms` old when it came; the new one comes `later_ms` on and was measured before."""
    old_us = NOW_US - ago_ms * 1_000
    assert not replaces(old_us - 1 - late_ms * 1_000, NOW_MS + later_ms, old_us, NOW_MS)


@given(st.integers(1, HOUR_MS), st.integers(2, HOUR_MS))
def test_a_clock_that_ran_ahead_can_not_freeze_the_latest(ahead_ms: int, later_ms: int) -> None:
    """It keeps its own order; once it is right, its next record wins."""
    ahead_us = NOW_US + ahead_ms * 1_000
    assert replaces(ahead_us, NOW_MS + 1, ahead_us, NOW_MS)
    assert not replaces(ahead_us + later_ms * 1_000 - 1, NOW_MS, ahead_us + later_ms * 1_000, NOW_MS)
    assert replaces(NOW_US + later_ms * 1_000, NOW_MS + later_ms, ahead_us, NOW_MS)
