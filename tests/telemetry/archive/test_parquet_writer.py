"""How a file's columns are encoded, and that other programs read it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from telemetry.archive.parquet_writer import LONG_TEXTS_BYTES, PAGE_ROWS, FileWriter
from telemetry.archive.schema import COLUMNS, columns, open_duckdb
from telemetry.archive.text_bytes import text_bytes
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import Record, row_of

ROWS = PAGE_ROWS + 1_000


KINDS: dict[str, tuple[Callable[[int], str | None], str]] = {
    "none": (lambda _: None, "RLE_DICTIONARY"),
    "few": (lambda n: f'{{"door":{n % 3}}}', "RLE_DICTIONARY"),
    "short": (lambda n: f"{n % 9_000}"[:3], "RLE_DICTIONARY"),
    "many": (
        lambda n: None if n % 50 == 0 else f'{{"odometer_km":{n},"ü":"{"x" * (n % 9)}"}}',
        "DELTA_LENGTH_BYTE_ARRAY",
    ),
}
"""Attributes of a row, and how they are encoded."""


def records(attributes: Callable[[int], str | None]) -> pa.Table:
    """Records of one device."""
    rows = [row_of(Record(n * 1_000_000, "tcp", "json", 53 + n / 1e6, attributes=attributes(n))) for n in range(ROWS)]
    return columns([Block("a", 1_795_500_000_000, range(1, ROWS + 1), rows)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_merged", [False, True])
def test_any_program_reads_attributes_of_any_kind(tmp_path: Path, kind: str, is_merged: bool) -> None:
    attributes, encoding = KINDS[kind]
    found, path = records(attributes), tmp_path / "file.parquet"
    with FileWriter(path, 4_096, is_merged) as writer:
        for at in range(0, ROWS, 2_500):
            writer.add(found.slice(at, 2_500))
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(n).column(COLUMNS.get_field_index("attributes")) for n in range(3)]
    assert all(encoding in group.encodings for group in groups)
    assert pq.read_table(path).equals(found)
    assert pl.read_parquet(path).to_arrow().cast(COLUMNS).equals(found)
    with duckdb.connect() as connection:
        connection.register("found", found)
        [(same,)] = connection.execute(f"SELECT count(*) FROM (FROM found INTERSECT ALL FROM '{path}')").fetchall()
    assert same == ROWS


@pytest.mark.parametrize("is_merged", [False, True])
def test_minus_zero_stays_minus_zero_beside_zero(tmp_path: Path, is_merged: bool) -> None:
    zeros = [(0.0, -0.0)[n % 2] for n in range(10)]
    rows = [row_of(Record(n, "tcp", "json", x, x, x, x, x, x)) for n, x in enumerate(zeros)]
    found, path = columns([Block("a", 1_795_500_000_000, range(1, 11), rows)]), tmp_path / "file.parquet"
    with FileWriter(path, 4_096, is_merged) as writer:
        writer.add(found)
    for name in ("latitude", "longitude", "altitude_m", "speed_kmh", "heading_deg", "accuracy_m"):
        assert [str(value) for value in pq.read_table(path).column(name).to_pylist()] == ["0.0", "-0.0"] * 5


LENGTHS: dict[str, Callable[[int], int]] = {
    "long": lambda n: 20_000,
    "a few long": lambda n: 200_000 if n < 300 else 10,
    "equal": lambda n: 1_000_000 if n < 40 else 1_000,
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_groups_of_long_texts_are_short(tmp_path: Path, kind: str) -> None:
    """A program that reads a row group holds a page of each column in memory: with all of a save's texts of 1 MB in one
    page, DuckDB cannot even count the bytes of a file within 192 MiB."""
    found = records(lambda n: f'{{"t":"{n % 7 * "x" + LENGTHS[kind](n) * "y"}"}}').slice(0, 1_500)
    path = tmp_path / "file.parquet"
    with FileWriter(path, 4_096, is_merged=False) as writer:
        writer.add(found)
    assert pq.read_table(path).equals(found)
    metadata = pq.read_metadata(path)
    sizes = [pc.sum(text_bytes(pq.ParquetFile(path).read_row_group(n))).as_py() for n in range(metadata.num_row_groups)]
    assert max(sizes) <= LONG_TEXTS_BYTES
    assert all(sum(pair) > LONG_TEXTS_BYTES for pair in pairwise(sizes))  # no shorter than they have to be
    with open_duckdb(memory_limit="96MiB") as connection:
        [(size,)] = connection.execute(f"SELECT sum(strlen(attributes)) FROM '{path}'").fetchall()
    assert size == sum(sizes)


def test_a_text_may_fill_a_group(tmp_path: Path) -> None:
    found = records(lambda n: f'"{2 * LONG_TEXTS_BYTES * "x"}"' if n in (3, 4) else None).slice(0, 10)
    path = tmp_path / "file.parquet"
    with FileWriter(path, 4_096, is_merged=False) as writer:
        writer.add(found)
    assert pq.read_table(path).equals(found)


def cut_off(writer: FileWriter) -> None:
    writer.add(records(lambda _: None))
    raise KeyError


def test_a_file_that_can_not_be_made_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "away" / "file.parquet"
    with pytest.raises(FileNotFoundError), FileWriter(path, 4_096, is_merged=True) as writer:
        writer.add(records(lambda _: None))
    with pytest.raises(KeyError), FileWriter(tmp_path / "file.parquet", 4_096, is_merged=True) as writer:
        cut_off(writer)
    assert list(tmp_path.iterdir()) == []
