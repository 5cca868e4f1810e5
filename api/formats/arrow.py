"""Arrow's IPC stream, with the archive's columns."""

from __future__ import annotations

import os

import duckdb
import pyarrow as pa

from api.formats.format import BATCH_ROWS, Format
from telemetry.archive.schema import COLUMNS


def write(connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS) -> int:
    """See `Write`."""
    rows = 0
    with connection.sql(records).to_arrow_reader(batch_rows) as batches, os.fdopen(file, "wb", closefd=False) as out:
        writer = pa.ipc.new_stream(out, COLUMNS)
        for batch in batches.cast(COLUMNS):  # the zone that times are shown in is the session's
            writer.write_batch(batch)
            rows += batch.num_rows
        writer.close()  # writes the end: not where something is missing
    return rows


FORMAT = Format(("application/vnd.apache.arrow.stream",), "arrows", write)
