"""Writes a Parquet file of the archive from sorted Arrow columns, one row group at a time.

Arrow needs less CPU than DuckDB's COPY and writes smaller files (docs/performance.md), because encodings are chosen per
column: delta encoding for times and ids, which increase; byte stream split for coordinates, whose first bytes are
similar; dictionaries for other columns, which have few values. Attributes that exceed a dictionary are long texts, each
similar to the one before; their lengths and texts are stored separately, which zstd compresses better.
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
"""Size limit of a group's dictionary, bytes. Attributes whose first group exceeds it get no dictionary."""

PAGE_ROWS = 8_192
"""Rows per page. Longer pages compress better; shorter pages make a single device faster to read."""

GROUP_BYTES = 2**26
"""Memory of waiting rows at which their groups are written, bytes."""

LONG_TEXT_BYTES = 2**10
"""Average size of a row's texts in a group, bytes, from which the group has fewer rows than others."""

LONG_TEXTS_BYTES = LONG_TEXT_BYTES * PAGE_ROWS
"""Maximum size of the texts of such a group, bytes, or one row: readers keep several copies of a column's page."""

SAVED_LEVEL = 1
MERGED_LEVELS = dict.fromkeys(COLUMNS.names, 6) | dict.fromkeys((*COORDINATES, "attributes"), 3)
"""zstd levels for merged files; a save's file is soon merged and uses the default. For the three largest columns higher
levels cost much time for little space."""

Bounds = tuple[Any, Any]


class FileWriter:
    """Writes one file with `group_rows` rows per group, or fewer if rows are long.

    `schema` is `COLUMNS`, in which texts may be dictionaries.

    Raises `OSError` if the disk is full or fails. A file that is not closed successfully is removed.
    """

    def __init__(self, path: Path, group_rows: int, is_merged: bool, schema: pa.Schema = COLUMNS) -> None:
        self._path = path
        self._group_rows = group_rows
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self.bounds: list[Bounds] = []
        """Minimum and maximum of each column in `BOUNDED` over all rows; times in µs since the epoch."""
        self.rows = 0
        self._schema = schema
        self._level = MERGED_LEVELS if is_merged else SAVED_LEVEL
        self._writer: pq.ParquetWriter | None = None

    def _open_writer(self, first: pa.Table) -> pq.ParquetWriter:
        """The writer, with encodings chosen by the content of the first group."""
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
            store_schema=False,  # Arrow's schema, which other tools do not use
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
        """Append records of `COLUMNS`, in order; an incomplete group waits for the next call."""
        if not records.num_rows:
            return
        bounds = [least_and_greatest(records, name) for name in BOUNDED]
        self.bounds = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(self.bounds or bounds, bounds, strict=True)]
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
            group = group.combine_chunks()  # faster to write than many chunks
            self._writer = self._writer or self._open_writer(group)
            self._writer.write_table(group, self._group_rows)
            at += group.num_rows
        self._waiting = [only_used(waiting.slice(rows))]
        self._waiting_rows -= rows
        self._waiting_bytes = waiting.slice(rows).nbytes


def _rows_of_group(rows: pa.Table) -> int:
    """Number of the first rows that form a group: all, or fewer if texts are long."""
    if sum(rows.column(name).nbytes for name in TEXTS) <= LONG_TEXT_BYTES * rows.num_rows:
        return int(rows.num_rows)
    return fitting_rows(rows, LONG_TEXTS_BYTES)


def _has_many_texts(column: pa.ChunkedArray) -> bool:
    """True if a group's texts exceed a dictionary."""
    return bool(column.nbytes > DICTIONARY_BYTES and column.unique().nbytes > DICTIONARY_BYTES)


def has_dictionary(chunk: pq.ColumnChunkMetaData) -> bool:
    """True if a file stores the values of a column chunk as a dictionary, which Arrow can read as one.

    Files of Arrow name the encoding of the dictionary itself as well.
    """
    return "RLE_DICTIONARY" in chunk.encodings
