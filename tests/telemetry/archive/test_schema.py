"""Records as columns, and the order, the days and the bounds of such columns."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.schema import COLUMNS, PIECE_ROWS, Columns, columns, days_of, is_sorted, least_and_greatest
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import EARLIEST_US, Record, Stored
from telemetry.model.utc import DAY_US, day_of

FULL = Record(EARLIEST_US + 7, "tcp", "msgpack", 53.4, -2.9, 33.5, 48.5, 120.0, 4.5, "Leeds", '{"fuel":61}')


def stored(device_id: str = "d", record_id: int = 1, timestamp_us: int = EARLIEST_US) -> Stored:
    return Stored(device_id, record_id, EARLIEST_US // 1_000 + record_id, Record(timestamp_us, "http", "json"))


def table(records: list[Stored]) -> pa.Table:
    return columns(map(Block.of, records))


def rows(found: pa.Table) -> list[tuple[object, ...]]:
    """Device, id and timestamp of each record."""
    names = [found.column(name).cast(pa.int64()).to_pylist() for name in ("id", "timestamp")]
    return list(zip(found.column("device_id").to_pylist(), *names, strict=True))


def test_each_field_has_its_column() -> None:
    [row] = table([Stored("d", 9, 1_000, FULL)]).to_pylist()
    assert (row["device_id"], row["id"], row["location"], row["attributes"]) == ("d", 9, "Leeds", '{"fuel":61}')
    numbers = ("latitude", "longitude", "altitude_m", "speed_kmh", "heading_deg", "accuracy_m")
    assert [row[name] for name in numbers] == [53.4, -2.9, 33.5, 48.5, 120.0, 4.5]
    assert (row["transport"], row["source"]) == ("tcp", "msgpack")
    assert row["received_at"].timestamp() == 1.0
    assert row["timestamp"].microsecond == 7


def test_no_records_are_columns_too() -> None:
    assert table([]).schema == COLUMNS
    assert table([]).num_rows == 0


@pytest.mark.parametrize("count", [1, PIECE_ROWS - 1, PIECE_ROWS, PIECE_ROWS + 1, 3 * PIECE_ROWS])
def test_pieces_follow_one_another(count: int) -> None:
    found = Columns()
    for number in range(count):
        found.add(Block.of(stored(record_id=number)))
    assert found.table().column("id").to_pylist() == list(range(count))


def test_a_block_counts_its_ids_in_steps() -> None:
    block = Block("d", 1_000, range(5, 14, 4), [(1, EARLIEST_US, "tcp", "json", *[None] * 8)] * 3)
    assert columns([block]).column("id").to_pylist() == [5, 9, 13]
    assert [one.id for one in block.stored()] == [5, 9, 13]


some = st.lists(
    st.builds(
        stored,
        st.sampled_from(["a", "b", "ä"]),
        st.integers(1, 3),
        st.integers(0, 3).map(lambda step: EARLIEST_US + step * DAY_US // 2),
    ),
    max_size=6,
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(some)
def test_the_order_of_files(records: list[Stored]) -> None:
    keys = [(one.device_id.encode(), one.record.timestamp_us, one.id) for one in records]
    # of two that are the same in all three either may come first, and `is_sorted` may say so or not
    expected = all(one < other for one, other in pairwise(keys))
    assert is_sorted(table(records)) or not expected
    assert not is_sorted(table(records)) or keys == sorted(keys)


@hypothesis_settings(max_examples=200, deadline=None)
@given(some)
def test_each_day_has_its_records_in_their_order(records: list[Stored]) -> None:
    found = days_of(table(records)) if records else []
    assert [day for day, _ in found] == sorted({day_of(one.record.timestamp_us) for one in records})
    for day, part in found:
        mine = [one for one in records if day_of(one.record.timestamp_us) == day]
        assert rows(part) == [(one.device_id, one.id, one.record.timestamp_us) for one in mine]


def test_bounds_are_exact() -> None:
    found = table([stored("b", 7, EARLIEST_US + 1), stored("a", 3, EARLIEST_US + 999_999)])
    assert least_and_greatest(found, "device_id") == ("a", "b")
    assert least_and_greatest(found, "id") == (3, 7)
    assert least_and_greatest(found, "timestamp") == (EARLIEST_US + 1, EARLIEST_US + 999_999)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_what_of_a_block_is_between(times: list[int], start: int, end: int) -> None:
    block = Block("d", 1, range(1, 1 + len(times)), [(1, time, "tcp", "json") for time in times])
    found = block.between(start, end)
    expected = [(at + 1, time) for at, time in enumerate(times) if start <= time < end]
    assert list(zip(found.ids, (row[1] for row in found.rows), strict=True)) == expected
