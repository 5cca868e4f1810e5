"""The names of meters are as Prometheus has them, and their labels can have few values."""

from __future__ import annotations

import re
from typing import Any

import pytest

from telemetry.observability import metrics
from telemetry.observability.metric_types import Counter, Family, Gauge, Histogram

UNITS = ("_bytes", "_seconds", "_records", "_total", "_limit", "_files")
BOUNDED = {"broker", "level", "port", "job_name", "kind", "loop", "protocol", "reason", "route", "status", "transport"}


@pytest.mark.parametrize("family", metrics.FAMILIES.values(), ids=metrics.FAMILIES)
def test_names_follow_the_conventions(family: Family[Any]) -> None:
    assert re.fullmatch(r"whimbrel(_[a-z]+)+", family.name)
    assert family.name.endswith("_total") == (family.kind is Counter)
    assert not re.search(r"_(ms|us|percent|kb|mb|count|sum|bucket|info)$", family.name)
    assert family.meaning.endswith(".")
    assert set(family.labels) <= BOUNDED
    assert (family.kind is Histogram) == bool(family.bounds)
    assert list(family.bounds) == sorted(set(family.bounds))


def test_a_limit_stands_beside_what_it_limits() -> None:
    gauges = {name for name, family in metrics.FAMILIES.items() if family.kind is Gauge}
    for name in gauges:
        if "_limit" in name:
            assert name.replace("_limit", "") in gauges, name


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="whimbrel_pending_bytes twice"):
        metrics._gauge("whimbrel_pending_bytes", "Another meaning.")
