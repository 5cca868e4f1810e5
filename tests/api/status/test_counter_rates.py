"""Counts between two reports: programs that restart, report late or stop reporting; and quantiles."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.status.counter_rates import Counts, Decoded, Reports, between, counts_of, quantile
from telemetry.coordination.metric_reports import Report
from telemetry.observability import metrics
from telemetry.observability.metric_types import Buckets, Histogram, Value

Samples = dict[str, list[tuple[tuple[str, ...], Value]]]


def report(program: str, started_s: float, accepted: float, process: int = 0, **more: Samples) -> Report:
    samples: Samples = {metrics.ACCEPTED.name: [((), accepted)]}
    for found in more.values():
        samples |= found
    return Report(program, process, "1", "3", started_s, samples)


def reports(*found: Report) -> Reports:
    return {one.name: one for one in found}


def accepted(before: Reports, now: Reports) -> float:
    return between(before, 100.0, now).accepted


def test_what_all_have_counted_is_added() -> None:
    before = reports(report("collector", 1, 10), report("collector", 1, 5, process=1), report("api", 2, 1))
    now = reports(report("collector", 1, 15), report("collector", 1, 5, process=1), report("api", 2, 2))
    assert accepted(before, now) == 6


def test_who_began_again_counts_from_nothing() -> None:
    assert accepted(reports(report("collector", 1, 1_000)), reports(report("collector", 101, 7))) == 7


def test_who_is_heard_late_has_counted_before() -> None:
    assert accepted({}, reports(report("collector", 1, 1_000))) == 0
    assert accepted({}, reports(report("collector", 100.5, 3))) == 3


def test_who_is_silent_counts_no_more() -> None:
    one = report("collector", 1, 10)
    assert accepted(reports(one), reports(one)) == 0


def test_decoders_are_told_apart_and_reasons_are_not() -> None:
    def counted(records: int, broken: int, unknown: int) -> Samples:
        return {
            metrics.DECODED.name: [(("json", "http"), records), (("h02", "tcp"), 2 * records)],
            metrics.REJECTED.name: [(("h02", "tcp", "broken"), broken), (("h02", "tcp", "unknown"), unknown)],
        }

    before, now = (
        reports(report("collector", 1, 0, counted=counted(*numbers)), report("api", 1, 0, counted=counted(1, 0, 0)))
        for numbers in ((10, 1, 0), (13, 1, 4))
    )
    assert between(before, 100.0, now).decoded == {("json", "http"): Decoded(3, 0), ("h02", "tcp"): Decoded(6, 4)}
    assert counts_of(now.values()).decoded == {("json", "http"): Decoded(14, 0), ("h02", "tcp"): Decoded(28, 5)}


def test_waits_are_those_between_the_looks() -> None:
    old = Histogram(metrics.WAIT_S)
    for _ in range(1_000):
        old.observe(4.0)
    before = reports(report("api", 1, 0, waits={metrics.ACK_S.name: [((), old.read())]}))
    old.observe(0.002)
    found: Counts = between(before, 100.0, reports(report("api", 1, 0, waits={metrics.ACK_S.name: [((), old.read())]})))
    assert sum(found.ack.counts) == 1
    assert found.ack.sum == pytest.approx(0.002)


@given(st.lists(st.floats(0, 14), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
@hypothesis_settings(deadline=None)
def test_a_quantile_lies_in_the_bucket_of_the_value_that_it_stands_for(values: list[float], part: float) -> None:
    told = Histogram(metrics.WAIT_S)
    for value in values:
        told.observe(value)
    found = quantile(metrics.WAIT_S, told.read(), part)
    rank = next(at for at in range(len(values)) if at + 1 >= part * len(values))
    real = sorted(values)[rank]
    ends = (0.0, *metrics.WAIT_S)
    low, high = next((low, high) for low, high in pairwise(ends) if real <= high)
    assert found is not None
    assert low <= found <= high
    if part == 0.5 and len(set(values)) == 1:
        assert low <= statistics.median(values) <= high


def test_quantiles_of_nothing_and_of_what_is_off_the_scale() -> None:
    told = Histogram(metrics.WAIT_S)
    assert quantile(metrics.WAIT_S, told.read(), 0.5) is None
    told.observe(99)
    assert quantile(metrics.WAIT_S, told.read(), 0.5) == metrics.WAIT_S[-1]
    assert quantile((1.0, 2.0), Buckets([0, 4, 0], 6.0), 0.5) == 1.5
