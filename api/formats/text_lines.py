"""Text formats with one line per record, built by DuckDB: building them in Python would be slow and hold the GIL.

DuckDB's own writers of CSV and JSON are slower, and write times, line ends and attributes in another form.
"""

from __future__ import annotations

import os

import duckdb
import pyarrow as pa

from api.formats.format import BATCH_ROWS, Write
from telemetry.archive.schema import time_sql


def lines(line: str, head: str = "", separator: str = "", tail: str = "", if_empty: str | None = None) -> Write:
    """Return a function that writes `head`, the text of the SQL `line` for each record, and `tail`.

    Without records it writes `if_empty`; None = `head` and `tail`. Each line begins with `separator`, which is removed
    from the first line.
    """
    without_records = head + tail if if_empty is None else if_empty

    def write(connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS) -> int:
        rows = 0
        with connection.sql(f"SELECT {line} AS line FROM ({records})").to_arrow_reader(batch_rows) as batches:
            for batch in batches:
                text = texts(batch.column(0), 0, len(batch))
                if rows == 0 and text:
                    put(file, head.encode())
                    text = text[len(separator) :]
                put(file, text)
                rows += batch.num_rows
        put(file, (tail if rows else without_records).encode())
        return rows

    return write


def iso(name: str) -> str:
    """SQL of a time in UTC, independent of the session's zone: 2026-11-24T10:25:00.000000Z."""
    return time_sql(f"epoch_us({name})")


def texts(column: pa.StringArray, first: int, end: int) -> memoryview:
    """The concatenated texts of rows `first` (inclusive) to `end` (exclusive): a view of the column's memory."""
    _, offsets, data = column.buffers()
    starts = memoryview(offsets).cast("i")
    return memoryview(data)[starts[column.offset + first] : starts[column.offset + end]]


def put(file: int, data: bytes | memoryview) -> None:
    """Write all of `data` to a file descriptor."""
    while data:
        data = data[os.write(file, data) :]
