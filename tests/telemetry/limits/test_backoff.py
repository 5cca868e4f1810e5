"""Exponential back-off."""

from __future__ import annotations

import pytest

from telemetry.limits.backoff import FIRST_WAIT_S, Backoff


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_waits_double_up_to_the_longest() -> None:
    clock = Clock()
    found = Backoff(3, 60.0, 600.0, 10, clock)
    waits = []
    for _ in range(8):
        clock.now_s += found.wait_s("a")
        found.begin("a")
        waits.append(found.wait_s("a"))
    assert waits == [0, 0, FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S, 8 * FIRST_WAIT_S, 60, 60]
    assert found.wait_s("b") == 0
    found.clear("a")
    assert found.wait_s("a") == 0


def test_attempts_at_once_all_count() -> None:
    found = Backoff(3, 60.0, 600.0, 10, Clock())
    for _ in range(3):
        found.begin("a")
    assert found.wait_s("a") == pytest.approx(FIRST_WAIT_S)


def test_a_success_takes_back_its_own_attempt_alone() -> None:
    found = Backoff(3, 60.0, 600.0, 10, Clock())
    for _ in range(2):
        found.begin("office")
    for _ in range(50):
        found.begin("office")
        found.take_back("office")
    assert found.wait_s("office") == 0
    found.begin("office")
    assert found.wait_s("office") > 0
    found.take_back("nobody")


def test_what_is_known_is_bounded_and_forgotten() -> None:
    clock = Clock()
    found = Backoff(1, 60.0, 600.0, 10, clock)
    for number in range(50):
        found.begin(str(number))
    assert len(found) == 10
    clock.now_s += 600
    assert found.wait_s("49") == 0
    for number in range(6):
        found.begin(f"new {number}")
    assert len(found) == 6
