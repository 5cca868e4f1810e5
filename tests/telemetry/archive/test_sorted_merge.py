"""Merging sorted files: every row once and in order, however they lie in the files, and never many in memory."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.archive import sorted_merge
from telemetry.archive.parquet_writer import FileWriter
from telemetry.archive.schema import COLUMNS, ORDER, columns
from telemetry.archive.sorted_merge import SCHEMA, NotSorted, ahead, cut, merged
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import Record, Stored

NOW_US = 1_795_500_000_000_000
DEVICES = ("", "a", "a ", "ü", "\U0001f69a", "\uffff")
SORTED = [(name, "ascending") for name in ORDER]


def stored(device: str, number: int, after_us: int, text: str | None = None) -> Stored:
    record = Record(NOW_US + after_us, "tcp", "json", latitude=number / 7, attributes=text)
    return Stored(device, number, NOW_US // 1_000, record)


def table(records: Sequence[Stored]) -> pa.Table:
    return columns(map(Block.of, records)).sort_by(SORTED)


def written(folder: Path, tables: Sequence[pa.Table], group_rows: int = 5) -> list[str]:
    paths = [str(folder / f"{number}.parquet") for number in range(len(tables))]
    for path, one in zip(paths, tables, strict=True):
        pq.write_table(one, path, row_group_size=group_rows)
    return paths


def test_a_slice_names_no_devices_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary is written whole, into each row group."""
    monkeypatch.setattr(sorted_merge, "MOST_ROWS", 10)
    names = [f"d{number:03}" for number in range(100)]
    tables = [table([stored(name, 2 * n + file, n) for n, name in enumerate(names)]) for file in range(2)]
    slices = list(merged(written(tmp_path, tables, group_rows=100)))
    assert len(slices) > 5
    for one in slices:
        column = one.column("device_id").combine_chunks()
        assert sorted(column.dictionary.to_pylist()) == sorted(set(column.to_pylist()))
    path = tmp_path / "merged.parquet"
    with FileWriter(path, 32, is_merged=True, schema=SCHEMA) as writer:
        for one in slices:
            writer.add(one)
    assert pq.read_table(path, schema=COLUMNS).equals(pa.concat_tables(tables).sort_by(SORTED))
    with pq.ParquetFile(path, read_dictionary=["device_id"]) as file:
        for number in range(file.num_row_groups):
            assert file.read_row_group(number).column("device_id").num_chunks == 1
            found = file.read_row_group(number).column("device_id").chunk(0)
            assert sorted(found.dictionary.to_pylist()) == sorted(set(found.to_pylist()))


places = st.tuples(st.sampled_from(DEVICES), st.integers(0, 3), st.integers(0, 5), st.booleans())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(places, max_size=60), st.integers(1, 6), st.integers(1, 4))
def test_each_row_comes_once_and_in_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: list[tuple[str, int, int, bool]],
    files: int,
    most_rows: int,
) -> None:
    monkeypatch.setattr(sorted_merge, "LEAST_ROWS", 1)
    monkeypatch.setattr(sorted_merge, "MOST_ROWS", most_rows)
    records = [
        (file % files, stored(device, n, after_us, "{}" if has_text else None))
        for n, (device, after_us, file, has_text) in enumerate(found)
    ]
    paths = written(tmp_path, [table([one for file, one in records if file == n]) for n in range(files)])
    slices = list(merged(paths))
    whole = pa.concat_tables([SCHEMA.empty_table(), *slices]).cast(COLUMNS)
    assert whole.equals(table([one for _, one in records]))


def test_little_of_many_rows_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_merge, "MOST_ROWS", 100)
    everything = [stored(f"d{n % 50:02}", n, n) for n in range(20_000)]
    paths = written(tmp_path, [table(everything[n::4]) for n in range(4)], 1_000)
    assert max(one.num_rows for one in merged(paths)) <= 4 * 2 * 100


def test_long_texts_come_in_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_merge, "READ_BYTES", 2**20)
    dice = random.Random(1)
    everything = [stored(f"d{n % 5}", n, n, dice.randbytes(2_000).hex()) for n in range(4_000)]
    paths = written(tmp_path, [table(everything[n::2]) for n in range(2)], 1_000)
    slices = list(merged(paths))
    assert max(one.nbytes for one in slices) <= 2 * 2**20
    assert sum(one.num_rows for one in slices) == 4_000


def test_a_column_that_a_file_lacks_is_null(tmp_path: Path) -> None:
    new, old = table([stored("a", 1, 0, "{}")]), table([stored("a", 2, 1, "{}")]).drop(["location", "attributes"])
    [found] = merged(written(tmp_path, [new, old]))
    assert found.schema.equals(SCHEMA)
    assert found["attributes"].to_pylist() == ["{}", None]
    assert found["location"].null_count == 2


@pytest.mark.parametrize("devices", [1, 50], ids=["few devices", "many"])
def test_files_that_duckdb_wrote(tmp_path: Path, connection: duckdb.DuckDBPyConnection, devices: int) -> None:
    """As releases before did, and as a deletion does: its encodings are others, by what it finds."""
    everything = [stored(f"d{n % devices:02}", n, n, "{}") for n in range(50)]
    paths = []
    for n in range(2):
        connection.register("part", table(everything[n::2]))
        paths.append(str(tmp_path / f"{n}.parquet"))
        connection.execute(f"COPY part TO '{paths[-1]}' (FORMAT parquet, PARQUET_VERSION v2)")
    assert pa.concat_tables(merged(paths)).cast(COLUMNS).equals(table(everything))


def test_a_file_in_another_order_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_merge, "MOST_ROWS", 2)
    monkeypatch.setattr(sorted_merge, "LEAST_ROWS", 1)
    upside_down = table([stored("a", n, n) for n in range(20)]).take(list(range(19, -1, -1)))
    with pytest.raises(NotSorted):
        list(merged(written(tmp_path, [upside_down, table([stored("b", 30, 0)])])))


def test_slices_made_ahead_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_merge, "MOST_ROWS", 100)
    paths = written(tmp_path, [table([stored("a", n, n) for n in range(at, 1_000, 2)]) for at in range(2)])
    assert pa.concat_tables(ahead(merged(paths))).equals(pa.concat_tables(merged(paths)))


def test_what_fails_while_slices_are_made_ahead_is_raised() -> None:
    def slices() -> Iterator[pa.Table]:
        yield SCHEMA.empty_table()
        raise NotSorted

    found = ahead(slices())
    assert next(found).num_rows == 0
    with pytest.raises(NotSorted):
        next(found)


def test_who_stops_amid_slices_made_ahead_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    found = ahead(merged(written(tmp_path, [table([stored("a", n, n) for n in range(100)])])))
    next(found)
    found.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("cuts", [[], [5], [1, 2], [3, 10, 12], [0, 13]], ids=str)
def test_slices_are_cut_where_pieces_begin(cuts: list[int]) -> None:
    slices = [pa.table({"n": list(range(begin, end))}) for begin, end in ((0, 3), (3, 4), (4, 13))]
    found: dict[int, list[int]] = {}
    for number, rows in cut(slices, cuts):
        found.setdefault(number, []).extend(rows["n"].to_pylist())
    ends = [*cuts, 13]
    assert {n: rows for n, rows in found.items() if rows} == {
        n: list(range(begin, end)) for n, (begin, end) in enumerate(zip([0, *cuts], ends, strict=True)) if begin < end
    }
