"""Token buckets: never more than the burst and what comes in time, and no wait that is not needed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.limits.token_bucket import Buckets, Rate


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


RATES = st.builds(Rate, st.floats(0.01, 100_000), st.integers(1, 10_000).map(float))
STEPS = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), min_size=1, max_size=60)


def buckets(per_s: float, burst: float, most: int = 100) -> tuple[Buckets, Clock]:
    clock = Clock()
    return Buckets(Rate(per_s, burst), most, clock), clock


@settings(deadline=None)
@given(RATES, STEPS)
def test_in_no_span_more_is_taken_than_the_burst_and_what_comes_meanwhile(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    found = Buckets(rate, 100, clock)
    taken: list[tuple[float, float]] = []
    for pause_s, asked in steps:
        clock.now_s += pause_s
        amount = min(asked, rate.burst)
        if found.take("a", amount) == 0:
            taken.append((clock.now_s, amount))
    for first in range(len(taken)):
        total = 0.0
        for at_s, amount in taken[first:]:
            total += amount
            most = rate.burst + rate.per_s * (at_s - taken[first][0])
            assert total <= most * (1 + 1e-6) + 1e-3


@settings(deadline=None)
@given(RATES, STEPS)
def test_who_waits_as_told_is_not_told_to_wait_again(rate: Rate, steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    found = Buckets(rate, 100, clock)
    for pause_s, amount in steps:
        clock.now_s += pause_s
        wait_s = found.take("a", amount)
        if wait_s:
            clock.now_s += wait_s * (1 + 1e-9) + 1e-6
            assert found.take("a", amount) == 0


@settings(deadline=None)
@given(st.floats(0.01, 10_000), st.integers(1, 200))
def test_who_keeps_to_the_rate_never_waits(per_s: float, count: int) -> None:
    found, clock = buckets(per_s, 1)
    for _ in range(count):
        assert found.take("a") == 0
        clock.now_s += 1 / per_s * (1 + 1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1_000), st.floats(0, 0.1)), max_size=300), st.integers(1, 20))
def test_there_are_never_more_than_may_be(asked: list[tuple[int, float]], most: int) -> None:
    found, clock = buckets(1, 5, most)
    for who, pause_s in asked:
        clock.now_s += pause_s
        found.take(str(who))
        assert len(found) <= most


def test_many_addresses_that_come_once_are_forgotten() -> None:
    found, clock = buckets(10, 10, 1_000_000)
    for who in range(50_000):
        clock.now_s += 0.01
        found.take(str(who))
    assert len(found) < 50


def test_more_than_a_bucket_holds_passes_when_it_is_full_and_is_paid_for_later() -> None:
    found, clock = buckets(10, 20)
    assert found.take("a", 100) == 0
    assert found.level("a") == (-80, 10)
    assert round(found.take("a", 1), 6) == 8.1
    clock.now_s += 10
    assert found.take("a", 100) == 0


def test_one_does_not_pay_for_another() -> None:
    found, _ = buckets(1, 1)
    assert found.take("a") == 0
    assert found.take("a") > 0
    assert found.take("b") == 0


def test_what_is_refused_costs_nothing() -> None:
    found, clock = buckets(1, 2)
    found.take("a", 2)
    for _ in range(100):
        assert found.take("a") > 0
    clock.now_s += 1
    assert found.take("a") == 0


def test_a_burst_of_0_is_what_comes_in_a_second() -> None:
    assert Rate.of(50, 0) == (50, 50)
    assert Rate.of(0.1, 0) == (0.1, 1)
    assert Rate.of(50, 7) == (50, 7)


def test_a_request_without_records_spends_nothing() -> None:
    """The very first one, too, when nobody has spent anything yet: it was answered 500."""
    found, _ = buckets(1, 1)
    found.spend("a", 0)
    assert found.take("a", 0) == 0
