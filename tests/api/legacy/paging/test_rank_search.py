"""Ranks over several parts: whatever is known of them, the window holds the page and begins where it says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.legacy.paging.rank_search import SLACK, Bounds, Marks, Part, window


def marks(keys: list[int], step: int) -> Marks:
    """What is known of a part with a mark at every `step`-th rank and at its last."""
    ranks = sorted({*range(0, len(keys), step), len(keys) - 1} if keys else ())
    return Marks(len(keys), [keys[rank] for rank in ranks], ranks)


def check(keys: list[list[int]], parts: list[Part], low: int, high: int, least: int, greatest: int) -> int:
    """Check one page; return how many records had to be read."""
    found = window(parts, low, high, least, greatest)
    read = sorted(key for part, a, b in zip(keys, found.starts, found.ends, strict=True) for key in part[a:b])
    page = sorted(key for part in keys for key in part)[low:high]
    assert read[found.skip : found.skip + high - low] == page
    return len(read)


@st.composite
def parted(draw: st.DrawFn) -> tuple[list[list[int]], list[Part], int, int]:
    """Keys spread over parts, what is known of each, and their outer bounds."""
    every = draw(st.lists(st.integers(0, 300), unique=True, max_size=120))
    count = draw(st.integers(1, 5))
    keys: list[list[int]] = [[] for _ in range(count)]
    for key in sorted(every):
        keys[draw(st.integers(0, count - 1))].append(key)
    parts: list[Part] = []
    for part in keys:
        number = draw(st.integers(0, 9))  # that of a step, or no marks at all
        if part and number == 0:
            parts.append(Bounds(len(part), max(part[0] - 7, 0), min(part[-1] + 7, 300)))
        else:
            parts.append(marks(part, max(number, 1)))
    return keys, parts, 0, 300


@hypothesis_settings(max_examples=500, deadline=None)
@given(parted=parted(), data=st.data())
def test_the_window_holds_the_page(parted: tuple[list[list[int]], list[Part], int, int], data: st.DataObject) -> None:
    keys, parts, least, greatest = parted
    total = sum(map(len, keys))
    low = data.draw(st.integers(0, max(total - 1, 0)))
    high = data.draw(st.integers(low + 1, max(total, low + 1)))
    check(keys, parts, low, high, least, greatest)


def test_pages_cover_everything_once_and_read_little_more() -> None:
    keys = [list(range(start, 30_000, 3)) for start in range(3)]
    parts: list[Part] = [marks(part, 256) for part in keys]
    for low in range(0, 30_000, 1_000):
        assert check(keys, parts, low, low + 50, 0, 30_000) <= 50 + 2 * SLACK + 3 * 4 * 256


def test_parts_beyond_the_page_are_not_read() -> None:
    keys = [list(range(day * 1_000, day * 1_000 + 1_000)) for day in range(50)]
    parts: list[Part] = [Bounds(len(part), part[0], part[-1]) for part in keys]
    found = window(parts, 20_100, 20_150, 0, 50_000)
    assert [place for place, (a, b) in enumerate(zip(found.starts, found.ends, strict=True)) if b > a] == [20]
    assert found.skip == 100


def test_keys_may_be_larger_than_any_word() -> None:
    keys = [[(1 << 104) + n for n in range(100)], [(1 << 104) + (n << 50) + 7 for n in range(1, 100)]]
    parts: list[Part] = [marks(part, 8) for part in keys]
    check(keys, parts, 90, 110, 0, 1 << 106)
