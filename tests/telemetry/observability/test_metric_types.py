"""What counts in a process counts right, and costs next to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.observability.metric_types import Counter, Family, Gauge, Histogram

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def test_a_counter_adds_up() -> None:
    family = Family(Counter, "whimbrel_x_total", "X.", ("reason",))
    family.of("busy").add()
    family.of("busy").add(4)
    family.of("late").value += 2
    assert dict(family.read()) == {("busy",): 5, ("late",): 2}


def test_a_gauge_tells_what_it_was_set_to_or_asks_and_may_not_know() -> None:
    family = Family(Gauge, "whimbrel_x", "X.", ("kind",))
    family.of("set").set(True)
    family.of("asked").watch(lambda: 7)
    family.of("unknown").set(None)
    assert list(family.read()) == [(("set",), 1.0), (("asked",), 7.0)]
    assert all(type(value) is float for _, value in family.read()), "a report has no other numbers"


def test_a_histogram_has_bounds_that_belong_to_the_bucket_below() -> None:
    found = Histogram(BOUNDS)
    for value in (0.0, 0.001, 0.002, 1.0, 1.5, 60.0):
        found.observe(value)
    assert found.read().counts == [2, 1, 0, 1, 2]
    assert found.read().sum == pytest.approx(62.503)


@settings(deadline=None)
@given(
    ages_ms=st.lists(st.integers(0, 3_000), max_size=40),
    now_s=st.integers(10, 1_000_000),
)
def test_many_ages_at_once_are_counted_as_each_alone(ages_ms: list[int], now_s: int) -> None:
    born_s = sorted(now_s - (ms + 0.5) / 1_000 for ms in ages_ms)  # never right on a bound
    at_once, alone = Histogram(BOUNDS), Histogram(BOUNDS)
    at_once.observe_ages(born_s, now_s)
    for one_s in born_s:
        alone.observe(now_s - one_s)
    assert at_once.counts == alone.counts
    assert at_once.sum == pytest.approx(alone.sum, abs=1e-6)


def test_what_takes_time_is_counted_however_it_ends() -> None:
    found = Histogram(BOUNDS)
    times = iter((10.0, 10.05, 20.0, 22.0))
    with found.timed(lambda: next(times)):
        pass
    with pytest.raises(KeyError), found.timed(lambda: next(times)):
        raise KeyError
    assert found.counts == [0, 0, 1, 0, 1]
