"""Files of which Arrow sees no pages before a row: what it reads of the others is what the whole file has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.records.page_skipping import HEADER_BYTES, NotRead, WantedPages, _page
from telemetry.archive import parquet_writer
from telemetry.archive.parquet_writer import FileWriter
from telemetry.archive.schema import COLUMNS, TIME

ROWS, PAGE_ROWS = 5_000, 1_024


def table(text_bytes: int = 30) -> pa.Table:
    """Rows that differ, with nulls among them, and texts of some length."""
    dice = Random(1)
    kinds: dict[pa.DataType, Callable[[], object]] = {
        pa.string(): lambda: str(dice.random())[:6] * (dice.randrange(text_bytes) // 6),
        TIME: lambda: dice.randrange(2**50),
        pa.int64(): lambda: dice.randrange(2**60),
        pa.float64(): lambda: dice.random(),
    }
    columns = []
    for field in COLUMNS:
        make = kinds[field.type]
        empty = 0.2 if field.name in ("altitude_m", "location", "attributes") else 0.0
        columns.append(pa.array([None if dice.random() < empty else make() for _ in range(ROWS)], field.type))
    return pa.table(columns, schema=COLUMNS)


def written(path: Path, records: pa.Table, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the archive writes it, with shorter pages."""
    monkeypatch.setattr(parquet_writer, "PAGE_ROWS", PAGE_ROWS)
    with FileWriter(path, 3_000, is_merged=True) as writer:
        writer.add(records)
    return path


def read(path: Path, names: list[str], row: int) -> tuple[dict[str, int], dict[str, pa.Array]]:
    """The first row that is left of each column, and what Arrow finds in it, over all row groups."""
    begins, found = {}, {}
    for name in names:
        pieces = []
        begins[name] = 0
        with pa.OSFile(str(path)) as file:
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                wanted = WantedPages(file)
                chunk = metadata.row_group(group).column(COLUMNS.get_field_index(name))
                begins[name] = wanted.begin(chunk, row)
                with pq.ParquetFile(
                    pa.PythonFile(wanted), metadata=metadata, pre_buffer=False, buffer_size=512
                ) as seen:
                    rows = metadata.row_group(group).num_rows - begins[name]
                    batches = seen.iter_batches(500, [group], [name], use_threads=False)
                    pieces.append(pa.Table.from_batches(batches).slice(0, rows))
        found[name] = pa.concat_tables(pieces).column(0)
    return begins, found


@pytest.mark.parametrize("row", [0, 1_023, 1_024, 1_999])
@pytest.mark.parametrize("text_bytes", [30, 3_000])
def test_what_is_left_is_what_was_there(
    row: int, text_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = table(text_bytes)
    path = written(tmp_path / "x.parquet", records, monkeypatch)
    begins, found = read(path, COLUMNS.names, row)
    for name in COLUMNS.names:
        begin = begins[name]
        expected = [*records.column(name).to_pylist()[begin:3_000], *records.column(name).to_pylist()[3_000 + begin :]]
        assert found[name].to_pylist() == expected, name
        assert begin <= row
        if text_bytes == 30 or COLUMNS.field(name).type != pa.string():
            assert begin == row // PAGE_ROWS * PAGE_ROWS


@pytest.mark.parametrize(
    "options", [{"data_page_version": "2.0"}, {"write_page_index": True}, {"write_statistics": False}]
)
def test_files_of_others_are_read_too(options: dict[str, object], tmp_path: Path) -> None:
    records, path = table().slice(0, 3_000), tmp_path / "x.parquet"
    pq.write_table(records, path, max_rows_per_page=PAGE_ROWS, row_group_size=3_000, **options)
    begins, found = read(path, COLUMNS.names, 2_500)
    for name, begin in begins.items():
        assert found[name].to_pylist() == records.column(name).to_pylist()[begin:], name


@pytest.mark.parametrize("place", range(0, 30, 3))
def test_what_is_no_header_of_values_is_not_taken_for_one(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "x.parquet", table(), monkeypatch)
    at = pq.read_metadata(path).row_group(0).column(6).data_page_offset
    header = bytearray(path.read_bytes()[at : at + HEADER_BYTES])
    size, rows = _page(bytes(header))
    assert rows == PAGE_ROWS
    assert 0 < size < 9 * PAGE_ROWS
    with pytest.raises(NotRead):
        _page(bytes(header[:place]))
    with pytest.raises(NotRead):
        _page(bytes(place) + bytes(header) if place else b"")
