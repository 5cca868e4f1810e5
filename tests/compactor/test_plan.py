"""What to merge and what to give up: bounds that hold whatever comes, and nothing that is done for ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from compactor.plan import REWRITE_FILES, SMALL_FILES, SMALL_PART, Limits, Rewrite, expired, rewrites
from telemetry.archive.data_files import LiveFile

TODAY = date(2026, 11, 24)
NOW_MS = 1_795_500_000_000
LIMITS = Limits(target_bytes=1_000, max_open_files=24, quiet_s=3_600)


def file(size_bytes: int, day: date = TODAY, made_ms: int = NOW_MS, name: str = "") -> LiveFile:
    return LiveFile(name or f"{day}-{size_bytes}-{made_ms}", day, size_bytes, size_bytes, made_ms, *[None] * 5)


def merged(rewrite: Rewrite, made_ms: int = NOW_MS) -> list[LiveFile]:
    """What a rewrite leaves, all bytes kept."""
    total = sum(one.size_bytes for one in rewrite.files)
    cuts = [total * n // rewrite.pieces for n in range(rewrite.pieces + 1)]
    return [
        file(cuts[n + 1] - cuts[n], rewrite.day, made_ms, f"{rewrite.files[0].path}+{n}") for n in range(rewrite.pieces)
    ]


def settle(files: Sequence[LiveFile], now_ms: int = NOW_MS, limits: Limits = LIMITS) -> tuple[list[LiveFile], int]:
    """Carry out rewrites until none is due; also the bytes written."""
    left, written = list(files), 0
    for _ in range(1_000):
        due = rewrites(left, TODAY, now_ms, limits)
        if not due:
            return left, written
        left = [one for one in left if one not in due[0].files] + merged(due[0])
        written += sum(one.size_bytes for one in due[0].files)
    raise AssertionError("rewrites go on for ever")


@pytest.mark.parametrize(("size_bytes", "saves", "rewritten"), [(1, 5_000, 6.0), (20, 5_000, 3.0), (300, 500, 1.5)])
def test_the_open_day_never_holds_more_files_than_it_may_and_rewrites_little(
    size_bytes: int, saves: int, rewritten: float
) -> None:
    files: list[LiveFile] = []
    written = 0
    for number in range(saves):
        files, more = settle([*files, file(size_bytes, name=f"{number:05}")])
        written += more
        small = [one for one in files if one.size_bytes < SMALL_PART * LIMITS.target_bytes]
        assert len(small) <= LIMITS.max_open_files
    assert sum(one.size_bytes for one in files) == size_bytes * saves
    assert written <= rewritten * size_bytes * saves


def test_a_day_that_is_over_becomes_one_file_once_it_is_quiet() -> None:
    yesterday = TODAY - timedelta(days=1)
    files = [file(size, yesterday, NOW_MS - 3_599_000) for size in (10, 20, 30)]
    assert rewrites(files, TODAY, NOW_MS, LIMITS) == []
    [left] = settle(files, NOW_MS + 1_000)[0]
    assert left.size_bytes == 60
    assert rewrites([left], TODAY, NOW_MS + 10**9, LIMITS) == [], "one file is as few as can be"


def test_many_small_files_of_a_day_that_is_over_do_not_wait() -> None:
    tomorrow = TODAY + timedelta(days=1)
    files = [file(1, tomorrow, name=str(n)) for n in range(SMALL_FILES)]
    assert len(settle(files)[0]) == 1, "a device whose clock is ahead makes no open day"
    assert len(settle(files[1:])[0]) == SMALL_FILES - 1


@pytest.mark.parametrize("day", [TODAY, TODAY - timedelta(1)], ids=["open", "over"])
def test_however_many_wait_few_are_open_at_once(day: date) -> None:
    files = [file(1, day, name=f"{number:04}") for number in range(900)]
    for rewrite in rewrites(files, TODAY, NOW_MS, LIMITS):
        assert 2 <= len(rewrite.files) <= REWRITE_FILES
    left, _ = settle(files)
    assert len(left) < 20
    assert sum(one.size_bytes for one in left) == 900


def test_large_files_are_left_alone() -> None:
    day = TODAY - timedelta(days=1)
    files = [file(1_000, day, 0, str(n)) for n in range(50)] + [file(5, day, 0), file(6, day, 0)]
    [due] = rewrites(files, TODAY, NOW_MS, LIMITS)
    assert [one.size_bytes for one in due.files] == [5, 6]


def test_a_clock_that_was_set_back_makes_no_day_noisy_for_ever() -> None:
    day = TODAY - timedelta(days=1)
    assert rewrites([file(5, day, NOW_MS + 10**9), file(6, day, NOW_MS + 10**9)], TODAY, NOW_MS, LIMITS)


DAYS = st.integers(-3, 3).map(lambda n: TODAY + timedelta(days=n))
FILES = st.lists(st.tuples(st.integers(1, 3_000), DAYS, st.integers(0, 10**7)), max_size=60).map(
    lambda drawn: [file(size, day, NOW_MS - age, str(n)) for n, (size, day, age) in enumerate(drawn)]
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(files=FILES)
def test_whatever_there_is_settles_and_loses_nothing(files: list[LiveFile]) -> None:
    left, _ = settle(files)
    for day in {one.day for one in files}:
        before = sum(one.size_bytes for one in files if one.day == day)
        assert sum(one.size_bytes for one in left if one.day == day) == before
    small: dict[date, int] = defaultdict(int)
    for one in left:
        small[one.day] += one.size_bytes < SMALL_PART * LIMITS.target_bytes
    assert all(count < (LIMITS.max_open_files if day == TODAY else SMALL_FILES) for day, count in small.items())


@hypothesis_settings(max_examples=300, deadline=None)
@given(files=FILES)
def test_a_rewrite_takes_small_files_of_one_day_and_makes_fewer(files: list[LiveFile]) -> None:
    for due in rewrites(files, TODAY, NOW_MS, LIMITS):
        assert {one.day for one in due.files} == {due.day}
        assert set(due.files) <= set(files)
        assert len(due.files) > due.pieces
        assert all(one.size_bytes < SMALL_PART * LIMITS.target_bytes for one in due.files)
        sizes = [one.size_bytes for one in merged(due)]
        assert due.pieces == 1 or min(sizes) >= SMALL_PART * LIMITS.target_bytes


def test_the_open_day_comes_first() -> None:
    old = TODAY - timedelta(days=9)
    files = [file(1, day, 0, f"{day}{n}") for n in range(24) for day in (old, TODAY)]
    assert [due.day for due in rewrites(files, TODAY, NOW_MS, LIMITS)] == [TODAY, old]


def test_days_are_given_up_by_age_and_by_size_the_oldest_first() -> None:
    files = [file(100, TODAY - timedelta(days=n), name=f"{n}{k}") for n in range(-1, 6) for k in range(2)]
    ago = [TODAY - timedelta(days=n) for n in range(6)]
    assert expired(files, TODAY, LIMITS) == []
    assert expired(files, TODAY, LIMITS._replace(retention_days=4)) == [ago[5], ago[4]]
    assert expired(files, TODAY, LIMITS._replace(retention_max_bytes=1_400)) == []
    assert expired(files, TODAY, LIMITS._replace(retention_max_bytes=1_399)) == [ago[5]]
    assert expired(files, TODAY, LIMITS._replace(retention_max_bytes=801)) == [ago[5], ago[4], ago[3]]
    everything = expired(files, TODAY, LIMITS._replace(retention_max_bytes=1, retention_days=1))
    assert everything == ago[:0:-1], "never the open day, nor one of the future"


def test_days_take_turns_so_that_many_small_ones_delay_no_other() -> None:
    """The open day comes first, then yesterday, whatever became of days long ago."""
    days = [TODAY, TODAY - timedelta(days=1), *(TODAY - timedelta(days=number) for number in range(100, 110))]
    files = [file(1, day, 0) for day in days for _ in range(LIMITS.max_open_files)]
    due = [one.day for one in rewrites(files, TODAY, NOW_MS, LIMITS)]
    assert due[:3] == [TODAY, TODAY - timedelta(days=1), min(days)]
    behind = [one.day for one in rewrites(files, TODAY, NOW_MS, LIMITS, after=due[6])]
    assert behind == [*due[:2], *due[7:], *due[2:7]]
