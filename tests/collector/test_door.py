"""How many connections there may be, and how often that is said."""

from __future__ import annotations

import logging

import pytest

from collector.door import LOG_EVERY_S, Door


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_in_all() -> None:
    door = Door(2, 0, Clock())
    assert [door.enter(address) for address in "abc"] == [True, True, False]
    door.leave("a")
    assert door.enter("a")
    assert not door.enter("a")
    assert door.refused == 2


def test_of_one_address() -> None:
    door = Door(100, 2, Clock())
    assert [door.enter(address) for address in "aabab"] == [True, True, True, False, True]
    door.leave("a")
    assert door.enter("a")
    assert not door.enter("a")


def test_nothing_is_kept_of_who_has_left() -> None:
    door = Door(100, 2, Clock())
    for number in range(1_000):
        assert door.enter(f"address {number}")
        door.leave(f"address {number}")
    assert not door._inside


def test_it_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    door = Door(1, 0, clock)
    door.enter("a")
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            door.enter("b")
            clock.now_s += LOG_EVERY_S / 20
    assert [record.getMessage() for record in caplog.records] == [
        "closed 1 connections at once: 1 are open",
        "closed 20 connections at once: 1 are open",
        "closed 20 connections at once: 1 are open",
    ]


def test_connections_are_numbered_and_a_refusal_says_which(caplog: pytest.LogCaptureFixture) -> None:
    door, third = Door(0, 0, Clock()), Door(0, 0, Clock(), process=2)
    assert [door.name() for _ in range(17)][::8] == ["c1", "c9", "c11"]
    assert [third.name(), third.name()] == ["c2.1", "c2.2"]
    assert not door.enter("a", "c11")
    [line] = caplog.records
    assert line.__dict__["connection"] == "c11"
