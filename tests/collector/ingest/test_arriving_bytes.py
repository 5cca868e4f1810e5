"""The memory limit for unfinished bodies: the largest or a stalled sender makes room for others."""

from __future__ import annotations

import pytest

from collector.ingest.arriving_bytes import PACE_BYTES, STALLED_S, Arriving, Upload

KIB = 1024


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def arriving(clock: Clock) -> Arriving:
    return Arriving(100 * KIB, clock)


def upload(sender: str, given_up: list[str] | None = None, name: str = "") -> Upload:
    found = [] if given_up is None else given_up
    return Upload(sender, lambda: found.append(name or sender))


def test_what_is_whole_counts_no_more(arriving: Arriving) -> None:
    one, other = upload("a"), upload("b")
    assert arriving.hold(one, 60 * KIB)
    assert arriving.hold(other, 30 * KIB)
    assert arriving.hold(other, 10 * KIB)
    assert arriving.bytes == 70 * KIB
    for each in (one, other):
        assert arriving.hold(each, 0)
    assert arriving.bytes == 0
    assert (arriving._paced, arriving._of, arriving._held) == ({}, {}, {})


def test_one_alone_may_always_come(arriving: Arriving) -> None:
    assert arriving.hold(upload("a"), 500 * KIB)


def test_a_sender_makes_no_room_for_its_own(arriving: Arriving) -> None:
    given_up: list[str] = []
    first, second = upload("a", given_up), upload("a", given_up)
    assert arriving.hold(first, 60 * KIB)
    assert not arriving.hold(second, 60 * KIB)
    arriving.hold(second, 0)
    assert not given_up
    assert arriving.bytes == 60 * KIB


def test_who_holds_most_makes_room_for_who_holds_little(arriving: Arriving) -> None:
    given_up: list[str] = []
    for number in range(9):
        assert arriving.hold(upload("greedy", given_up, str(number)), 11 * KIB)
    assert arriving.hold(upload("a", given_up), 20 * KIB)
    assert given_up == ["0", "1"]
    assert arriving.bytes == 97 * KIB


def test_senders_that_hold_alike_do_not_end_each_other(arriving: Arriving) -> None:
    given_up: list[str] = []
    assert arriving.hold(upload("a", given_up), 60 * KIB)
    assert not arriving.hold(upload("b", given_up), 50 * KIB)
    assert not given_up


def test_the_stalled_go_first_whosever_they_are(arriving: Arriving, clock: Clock) -> None:
    given_up: list[str] = []
    drips, flows = upload("a", given_up, "drips"), upload("a", given_up, "flows")
    dripped, flowed = 40 * KIB, 40 * KIB
    for _ in range(int(STALLED_S) + 1):
        clock.now_s += 1
        dripped, flowed = dripped + 1, flowed + PACE_BYTES
        assert arriving.hold(drips, dripped)
        assert arriving.hold(flows, flowed)
    assert arriving.hold(upload("a", given_up), 40 * KIB)
    assert given_up == ["drips"]
    assert drips.is_given_up
    assert not arriving.hold(drips, dripped + 1)
    assert arriving.hold(drips, 0)
    assert arriving.bytes == flowed + 40 * KIB


def test_a_slow_one_keeps_its_place_while_there_is_room(arriving: Arriving, clock: Clock) -> None:
    slow = upload("a")
    for size in range(1, 100):
        clock.now_s += 10
        assert arriving.hold(slow, size)
    assert not slow.is_given_up


def test_a_whole_body_counts_on_but_makes_no_room(arriving: Arriving, clock: Clock) -> None:
    given_up: list[str] = []
    whole, greedy, small = upload("a", given_up), upload("a", given_up), upload("b", given_up)
    assert arriving.hold(whole, 5 * KIB)
    assert arriving.keep(whole, 5 * KIB)
    assert arriving.keep(whole, 60 * KIB), "inflated"
    assert arriving.hold(greedy, 30 * KIB)
    clock.now_s += STALLED_S
    assert arriving.hold(small, 20 * KIB)
    assert given_up == ["a"]
    assert greedy.is_given_up
    assert not arriving.hold(small, 50 * KIB)
    for one in (whole, small):
        assert arriving.hold(one, 0)
    assert (arriving.bytes, arriving._paced, arriving._of, arriving._held) == (0, {}, {}, {})
