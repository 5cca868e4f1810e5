"""Arrow IPC stream with the archive's columns."""

from __future__ import annotations

import os

import duckdb
import pyarrow as pa

from api.formats.format import BATCH_ROWS, Format
from telemetry.archive.schema import COLUMNS


def zero_nulls(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return an equal batch whose null slots hold zeros. DuckDB leaves earlier contents of its memory in null slots.

    `take` writes zeros to null slots, also in child arrays.
    """
    every_row = pa.arange(0, batch.num_rows)
    columns = [column.take(every_row) if _may_have_nulls(column) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _may_have_nulls(column: pa.Array) -> bool:
    return bool(column.null_count) or pa.types.is_nested(column.type)


def write(connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS) -> int:
    """See `Write`."""
    rows = 0
    with connection.sql(records).to_arrow_reader(batch_rows) as batches, os.fdopen(file, "wb", closefd=False) as out:
        writer = pa.ipc.new_stream(out, COLUMNS)
        for batch in batches.cast(COLUMNS):  # DuckDB gives times the zone of its session
            writer.write_batch(zero_nulls(batch))
            rows += batch.num_rows
        writer.close()  # writes the end mark; skipped after an error, so that an incomplete file is recognizable
    return rows


FORMAT = Format(("application/vnd.apache.arrow.stream",), "arrows", write)
