"""Text, a line a record, which DuckDB puts together: in Python a million records would take seconds and hold the GIL.

DuckDB's own writers of CSV and JSON take a third longer, and word times, line ends and attributes otherwise.
"""

from __future__ import annotations

import os

import duckdb
import pyarrow as pa

from api.formats.format import BATCH_ROWS, Write
from telemetry.archive.schema import time_sql


def lines(line: str, head: str = "", joint: str = "", tail: str = "", nothing: str | None = None) -> Write:
    """What writes `head`, of each record the text that the SQL `line` makes, and `tail`; where there is no record,
    `nothing`, or else `head` and `tail`.

    Each line begins with `joint`, which is left out of the first.
    """
    empty = head + tail if nothing is None else nothing

    def write(connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS) -> int:
        rows = 0
        with connection.sql(f"SELECT {line} AS line FROM ({records})").to_arrow_reader(batch_rows) as batches:
            for batch in batches:
                text = texts(batch.column(0), 0, len(batch))
                if rows == 0 and text:
                    put(file, head.encode())
                    text = text[len(joint) :]
                put(file, text)
                rows += batch.num_rows
        put(file, (tail if rows else empty).encode())
        return rows

    return write


def iso(name: str) -> str:
    """SQL of a time in UTC, whatever the session's zone: 2026-11-24T10:25:00.000000Z."""
    return time_sql(f"epoch_us({name})")


def texts(column: pa.StringArray, first: int, end: int) -> memoryview:
    """The texts of a column's rows from `first` to before `end`, one after the other, as they lie in memory."""
    _, offsets, data = column.buffers()
    starts = memoryview(offsets).cast("i")
    return memoryview(data)[starts[column.offset + first] : starts[column.offset + end]]


def put(file: int, data: bytes | memoryview) -> None:
    """Write all of `data` to a file descriptor."""
    while data:
        data = data[os.write(file, data) :]
