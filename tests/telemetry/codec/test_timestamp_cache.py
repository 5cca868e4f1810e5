"""Times put together from parts that were seen before: the same as `iso_us` reads, or none."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.codec import timestamp_cache
from telemetry.codec.record_parser import iso_us
from telemetry.codec.timestamp_cache import MAX_MINUTES, usual_us


@given(st.datetimes(), st.sampled_from(["seconds", "milliseconds"]))
def test_a_usual_time_is_what_iso_us_reads(at: Any, precision: str) -> None:
    text = at.isoformat("T", precision) + "Z"
    assert usual_us([text, text]) == [iso_us(text)] * 2


@given(st.datetimes().map(lambda at: at.isoformat() + "Z"), st.integers(0, 30), st.text(max_size=3))
def test_a_time_with_something_changed_is_the_same_or_none(text: str, place: int, other: str) -> None:
    changed = text[:place] + other + text[place + 1 :]
    try:
        [found] = usual_us([changed])
    except (KeyError, ValueError):
        return
    assert found == iso_us(changed)


@pytest.mark.parametrize("value", [None, 7, 7.0, "", "2026-11-24", "2026-11-24T10:25:60Z", "2026-11-24T10:25:00+01:00"])
def test_what_is_no_usual_time(value: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        usual_us([value])


def test_minutes_that_are_remembered_are_bounded() -> None:
    start = datetime(2026, 1, 1)
    usual_us((start + timedelta(minutes=minute)).isoformat() + "Z" for minute in range(MAX_MINUTES + 10))
    assert 0 < len(timestamp_cache._minutes) <= MAX_MINUTES
