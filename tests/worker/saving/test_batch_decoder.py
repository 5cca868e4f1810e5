"""A page read at once holds what its entries hold, or is left to be read one by one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.hot_store.entry_codec import LATEST_MS, MAX_FIRST_ID, RawEntry, Unreadable, read_block
from telemetry.model.record import Record, encode
from worker.saving.batch_decoder import Page, read_page

NOW_US = 1_795_500_000_000_000
SHARDS = 3


def packed(records: int, text: str = "{}") -> bytes:
    found = (Record(NOW_US + n, "tcp", "json", latitude=n / 7, attributes=text) for n in range(records))
    return msgspec.msgpack.encode([msgspec.Raw(encode(record)) for record in found])


def entry(ms: int, first_id: int, records: bytes) -> RawEntry:
    return f"{ms}-0".encode(), [b"i", str(first_id).encode(), b"r", records]


def one_by_one(entries: Sequence[RawEntry]) -> tuple[Page, list[Unreadable]]:
    unreadable: list[Unreadable] = []
    blocks = [block for one in entries if (block := read_block("a", one, SHARDS, unreadable.append)) is not None]
    arrivals = [block.received_ms * 1_000 for block in blocks for _ in block.rows]
    sizes = [len(block.rows) for block in blocks]
    return Page(
        sizes, arrivals, [n for b in blocks for n in b.ids], [row for b in blocks for row in b.rows]
    ), unreadable


def assert_same(entries: Sequence[RawEntry]) -> None:
    """Either way finds the same, or only reading one by one finds anything."""
    page = read_page(entries, SHARDS)
    if page is not None:
        as_lists = Page(list(page.sizes), list(page.arrivals_us), list(page.ids), list(page.rows))
        assert (as_lists, []) == one_by_one(entries)


@given(st.lists(st.sampled_from([1, 2, 15, 16, 300]), min_size=1, max_size=8))
@settings(deadline=None)
def test_entries_as_append_makes_them_are_read_at_once(sizes: list[int]) -> None:
    entries = [entry(1_795_500_000_000 + n, 10_000 * n + 1, packed(size)) for n, size in enumerate(sizes)]
    for _, fields in entries[::2]:
        fields += [b"m", bytes(8)]
    assert read_page(entries, SHARDS) is not None
    assert_same(entries)


GOOD = packed(2)
ODD: dict[str, RawEntry] = {
    "nothing": entry(2, 9, b""),
    "no record": entry(2, 9, packed(0)),
    "no array": entry(2, 9, encode(Record(NOW_US, "tcp", "json"))),
    "cut off": entry(2, 9, GOOD[:-1]),
    "cut off before its second record": entry(2, 9, packed(1).replace(b"\x91", b"\x92", 1)),
    "one array more": entry(2, 9, GOOD + packed(1)),
    "one record more": entry(2, 9, GOOD + encode(Record(NOW_US, "tcp", "json"))),
    "another version": entry(2, 9, packed(1).replace(b"\x01", b"\x02", 1)),
    "no UTF-8": entry(2, 9, packed(1, "{}xy").replace(b"xy", b"\xff\xfe")),
    "an array in another form": entry(2, 9, b"\xdd\x00\x00\x00\x01" + packed(1)[1:]),
    "an arrival of its own": (b"2-0", [b"i", b"9", b"r", GOOD, b"a", b"7"]),
    "a field that is not known": (b"2-0", [b"i", b"9", b"r", GOOD, b"x", b"7"]),
    "other fields": (b"2-0", [b"i", b"9", b"x", GOOD]),
    "no id": (b"2-0", [b"r", GOOD]),
    "an id that is no number": (b"2-0", [b"i", b"+9", b"r", GOOD]),
    "no digit": (b"2-0", [b"i", b"", b"r", GOOD]),
    "an id that is too great": entry(2, MAX_FIRST_ID + 1, GOOD),
    "an id without end": entry(2, 10**400, GOOD),
    "a late arrival": entry(LATEST_MS + 1, 9, GOOD),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_odd_ones_among_them_are_left_to_be_read_by_themselves(odd: RawEntry, at: int) -> None:
    entries = [entry(1, 1, GOOD), entry(3, 20, GOOD)]
    entries.insert(at, odd)
    assert read_page(entries, SHARDS) is None
    assert_same(entries)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_whatever_happens_to_their_bytes(data: st.DataObject) -> None:
    entries = [entry(n + 1, 100 * n, packed(size)) for n, size in enumerate((1, 3, 2))]
    number = data.draw(st.integers(0, 2))
    name, fields = entries[number]
    raw = bytearray(fields[3])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    entries[number] = (name, [*fields[:3], bytes(raw[:cut]) if data.draw(st.booleans()) else bytes(raw)])
    assert_same(entries)


def test_no_entry_is_no_page() -> None:
    assert read_page([], SHARDS) is None
