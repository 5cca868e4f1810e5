"""A Parquet file of the archive as it is written: Arrow columns in the order of files, group by group of rows.

Arrow writes in 0.2 to 0.35 µs of CPU a record what DuckDB's COPY takes 0.6 for, and 3 % less: DuckDB chooses encodings
by itself, and these are chosen for what the columns hold. Times and ids grow: deltas. No two coordinates are alike, but
their first bytes are: streams of bytes. All else has few values: a dictionary. Attributes that fill theirs are long
texts, each much like the one before: first all lengths, then all texts, in which zstd finds up to a fifth more.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.archive.schema import BOUNDED, COLUMNS, least_and_greatest, only_used
from telemetry.archive.text_bytes import TEXTS, fitting_rows

RISING = ("timestamp", "received_at", "id")
COORDINATES = ("latitude", "longitude")
ENCODINGS = dict.fromkeys(RISING, "DELTA_BINARY_PACKED") | dict.fromkeys(COORDINATES, "BYTE_STREAM_SPLIT")
OF_MANY_TEXTS = {"attributes": "DELTA_LENGTH_BYTE_ARRAY"}

DICTIONARY_BYTES = 2**16
"""Beyond that a group's further values follow one another. Attributes whose first group has more get no dictionary."""

PAGE_ROWS = 8_192
"""zstd finds more in longer pages: a record takes 15.99 bytes, 15.72 with twice as many rows, and 16.33 with half as
many. Who reads one device decodes a quarter of what it would of a page for a whole group."""

GROUP_BYTES = 2**26
"""Bytes of memory at which rows that wait to be written fill their groups."""

LONG_TEXT_BYTES = 2**10
"""Texts of a row, on average of a group, from which the group has fewer rows than others."""

LONG_TEXTS_BYTES = LONG_TEXT_BYTES * PAGE_ROWS
"""Maximum of the texts of such a group, or one row: readers hold a whole page of a column in memory, several times."""

SAVED_LEVEL = 1
MERGED_LEVELS = dict.fromkeys(COLUMNS.names, 6) | dict.fromkeys((*COORDINATES, "attributes"), 3)
"""zstd's: a save's file is soon merged. Higher ones for the three largest columns, of a merge's file, take a third more
time for 2 % less room."""

Bounds = tuple[Any, Any]


class FileWriter:
    """Writes one file, in which each group has `group_rows` rows, or fewer where they are long.

    `schema` is `COLUMNS`, of which texts may be dictionaries.

    Raises `OSError` if the disk is full or fails. One that is not closed well leaves no file.
    """

    def __init__(self, path: Path, group_rows: int, is_merged: bool, schema: pa.Schema = COLUMNS) -> None:
        self._path = path
        self._group_rows = group_rows
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self.bounds: list[Bounds] = []
        """The least and the greatest value of each of `BOUNDED`, of all rows; times in µs since the epoch."""
        self.rows = 0
        self._schema = schema
        self._level = MERGED_LEVELS if is_merged else SAVED_LEVEL
        self._writer: pq.ParquetWriter | None = None

    def _opened(self, first: pa.Table) -> pq.ParquetWriter:
        """The writer, its encodings chosen for what the first group holds."""
        encodings = ENCODINGS | (OF_MANY_TEXTS if _has_many_texts(first.column("attributes")) else {})
        return pq.ParquetWriter(
            self._path,
            self._schema,
            version="2.6",
            compression="zstd",
            compression_level=self._level,
            use_dictionary=[name for name in COLUMNS.names if name not in encodings],
            column_encoding=encodings,
            dictionary_pagesize_limit=DICTIONARY_BYTES,
            max_rows_per_page=PAGE_ROWS,
            store_schema=False,  # Arrow's own, of which no other tool knows
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write(self._waiting_rows)
            if self._writer is not None:
                self._writer.close()
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def add(self, records: pa.Table) -> None:
        """Write records of `COLUMNS`, which follow all others; those that fill no group wait for the next."""
        if not records.num_rows:
            return
        found = [least_and_greatest(records, name) for name in BOUNDED]
        self.bounds = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(self.bounds or found, found, strict=True)]
        self.rows += records.num_rows
        self._waiting.append(records)
        self._waiting_rows += records.num_rows
        self._waiting_bytes += records.nbytes
        whole_groups = self._waiting_rows // self._group_rows * self._group_rows
        if rows := self._waiting_rows if self._waiting_bytes >= GROUP_BYTES else whole_groups:
            self._write(rows)

    def _write(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting).unify_dictionaries()
        at = 0
        while at < rows:
            group = waiting.slice(at, min(self._group_rows, rows - at))
            group = only_used(group.slice(0, _rows_of_group(group)))
            group = group.combine_chunks()  # chunk after chunk takes a tenth longer to write
            self._writer = self._writer or self._opened(group)
            self._writer.write_table(group, self._group_rows)
            at += group.num_rows
        self._waiting = [only_used(waiting.slice(rows))]
        self._waiting_rows -= rows
        self._waiting_bytes = waiting.slice(rows).nbytes


def _rows_of_group(rows: pa.Table) -> int:
    """Number of the first rows that make a group: all, or fewer where texts are long."""
    if sum(rows.column(name).nbytes for name in TEXTS) <= LONG_TEXT_BYTES * rows.num_rows:
        return int(rows.num_rows)
    return fitting_rows(rows, LONG_TEXTS_BYTES)


def _has_many_texts(column: pa.ChunkedArray) -> bool:
    """Whether a group's texts fill a dictionary."""
    return bool(column.nbytes > DICTIONARY_BYTES and column.unique().nbytes > DICTIONARY_BYTES)
