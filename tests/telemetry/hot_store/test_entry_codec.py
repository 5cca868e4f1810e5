"""Entries of a device's records: the quick way packs what the plain one does."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from telemetry.hot_store.entry_codec import MARK_BYTES, Entry, pack, packed
from telemetry.model.record import MAX_ENTRY_BYTES, MAX_ENTRY_SPAN_US, NO_FIX, Record, Sent, decode_rows

NOW_US = 1_795_500_000_000_000

records = st.builds(
    Record,
    st.sampled_from([NOW_US, NOW_US + 1, NOW_US - 5_000_000]),
    st.sampled_from(["tcp", "tcp", "udp", "http"]),
    st.just("json"),
    st.sampled_from([53.4, 53.4, None]),
    st.sampled_from([-2.9, -2.9, None]),
    attributes=st.sampled_from([None, None, NO_FIX + "}", '{"fuel":7}']),
)


@given(st.lists(records, min_size=1, max_size=20))
def test_any_records_are_packed_as_the_plain_way_packs_them(found: list[Record]) -> None:
    assert pack([Sent("d", one) for one in found]) == [Entry("d", *packed(found))]


def test_what_is_too_far_apart_or_too_many_for_one_entry_is_split() -> None:
    first, last = (
        Record(NOW_US - MAX_ENTRY_SPAN_US - 1, "tcp", "json", 1.0, 1.0),
        Record(NOW_US, "tcp", "json", 1.0, 1.0),
    )
    assert [entry.size for entry in pack([Sent("d", first), Sent("d", last)])] == [1, 1]
    assert [entry.size for entry in pack([Sent("d", last)] * 2_001)] == [1_000, 1_000, 1]


def test_an_entry_of_several_records_has_a_megabyte_at_most() -> None:
    found = [Record(NOW_US + n, "tcp", "json", attributes='{"x":"' + "x" * (300_000) + '"}') for n in range(10)]
    entries = pack([Sent("d", one, True) for one in found])
    assert sum(entry.size for entry in entries) == 10
    assert [len(entry.marks) for entry in entries] == [MARK_BYTES * entry.size for entry in entries]
    assert len({mark for entry in entries for mark in struct.iter_unpack(f"{MARK_BYTES}s", entry.marks)}) == 10
    assert all(len(entry.records) <= MAX_ENTRY_BYTES for entry in entries)
    assert [row[1] for entry in entries for row in decode_rows(entry.records)] == [one.timestamp_us for one in found]
    alone = [Record(NOW_US, "tcp", "json", attributes='{"x":"' + "x" * (2 * MAX_ENTRY_BYTES) + '"}')]
    assert [entry.size for entry in pack([Sent("d", one) for one in alone * 2])] == [1, 1]
