"""Parquet with the archive's columns and a GeoParquet point for each record; opens in QGIS and GeoPandas.

Arrow writes it in a separate thread while DuckDB reads the next records. DuckDB's own writer uses more CPU and memory,
and omits the GeoParquet metadata from a file without points.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.formats.format import BATCH_ROWS, Format
from telemetry.archive.schema import COLUMNS, TIME

GROUP_ROWS = 65_536
"""Maximum rows of a row group. Up to two groups are in memory."""

GROUP_BYTES = 2**25
"""Size in memory at which a row group ends, in bytes."""

_DOUBLE = pa.binary(8)
_POINT_HEAD = pa.scalar(b"\x01\x01\x00\x00\x00", pa.binary())
"""Header of a point in WKB: little-endian, type point. Its two coordinates follow."""

_NO_SEPARATOR = pa.scalar(b"", pa.binary())

_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
}
_SCHEMA = COLUMNS.append(pa.field("geometry", pa.binary())).with_metadata({"geo": json.dumps(_GEO)})
_ENCODINGS = {pa.float64(): "BYTE_STREAM_SPLIT", pa.int64(): "DELTA_BINARY_PACKED", TIME: "DELTA_BINARY_PACKED"}


def write(connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS) -> int:
    """See `Write`."""
    rows = 0
    with os.fdopen(file, "wb", closefd=False) as out, ThreadPoolExecutor(1) as pool:
        writer = _open(out)
        try:
            with connection.sql(records).to_arrow_reader(batch_rows) as batches:
                writing: Future[None] | None = None
                for group in _groups(map(_with_points, batches.cast(COLUMNS))):
                    if writing is not None:
                        writing.result()
                    writing = pool.submit(writer.write_table, group, GROUP_ROWS)
                    rows += group.num_rows
            if writing is not None:
                writing.result()
        except BaseException:
            writer.is_open = False  # or else its destructor would write the footer of a complete file
            raise
        writer.close()
    return rows


def _open(out: object) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        out,
        _SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=["device_id", "transport", "source"],
        column_encoding={field.name: _ENCODINGS[field.type] for field in COLUMNS if field.type in _ENCODINGS},
    )


def _with_points(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Append the column of points (WKB) to a batch. Arrow needs less CPU for this than DuckDB."""
    coordinates = (_bytes(batch.column(name)) for name in ("longitude", "latitude"))
    points = pc.binary_join_element_wise(_POINT_HEAD, *coordinates, _NO_SEPARATOR)
    return pa.RecordBatch.from_arrays([*batch.columns, points], schema=_SCHEMA)


def _bytes(numbers: pa.DoubleArray) -> pa.BinaryArray:
    """Bytes of each number in memory order: little-endian on every machine that DuckDB supports."""
    return pa.Array.from_buffers(_DOUBLE, len(numbers), numbers.buffers(), offset=numbers.offset).cast(pa.binary())


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of about `GROUP_ROWS` rows, or fewer if the rows are long. The last table has the remaining rows."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(pending)
            pending, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(pending)


FORMAT = Format(("application/vnd.apache.parquet", "application/x-parquet"), "parquet", write)
