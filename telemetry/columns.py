"""The columns of the archive's files, records as such columns, and DuckDB, which writes and reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from telemetry.record import Stored

pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own gives little back: under load 50 MB more in each program

T = TypeVar("T")

TIME = pa.timestamp("us", tz="UTC")
COLUMNS = pa.schema(
    [
        ("device_id", pa.string()),
        ("timestamp", TIME),
        ("received_at", TIME),
        ("id", pa.int64()),
        ("transport", pa.string()),
        ("source", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("altitude_m", pa.float64()),
        ("speed_kmh", pa.float64()),
        ("heading_deg", pa.float64()),
        ("accuracy_m", pa.float64()),
        ("location", pa.string()),
        ("attributes", pa.string()),
    ]
)
"""The columns of a file; the table has `date` besides."""

BOUNDED = ("device_id", "timestamp", "received_at", "id", "transport")
"""Columns whose least and greatest value the log keeps for each file, so that queries skip files or need none."""


def columns(records: Iterable[Stored]) -> pa.Table:
    """Records as an Arrow table of `COLUMNS`."""
    rows = [
        (
            device_id,
            r.timestamp_us,
            received_ms * 1000,
            record_id,
            r.transport,
            r.source,
            r.latitude,
            r.longitude,
            r.altitude_m,
            r.speed_kmh,
            r.heading_deg,
            r.accuracy_m,
            r.location,
            r.attributes,
        )
        for device_id, record_id, received_ms, r in records
    ]
    if not rows:
        return COLUMNS.empty_table()
    values = zip(*rows, strict=True)
    return pa.table([pa.array(v, type=f.type) for v, f in zip(values, COLUMNS, strict=True)], schema=COLUMNS)


def sql_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def open_duckdb(temp_dir: Path | None = None, memory_limit: str = "1GB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB in UTC that fetches nothing from the network."""
    connection = duckdb.connect(
        config={"memory_limit": memory_limit, "threads": threads, "autoinstall_known_extensions": False}
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET allocator_background_threads = true")  # gives memory back seconds after its use
    if temp_dir is not None:
        temp_dir.mkdir(parents=True, exist_ok=True)
        connection.execute(f"SET temp_directory = {sql_text(str(temp_dir))}")
    return connection


def with_memory(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], most_bytes: int) -> T:
    """Do `work`; where the connection has too little memory for it with twice as much, again and again.

    A sort spills rows, but not their long texts. Raises `duckdb.OutOfMemoryException` if `most_bytes` are too little.
    """
    [(usual,)] = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    limit_bytes = first_bytes = _bytes(usual)
    try:
        while True:
            try:
                return work()
            except duckdb.OutOfMemoryException:
                limit_bytes *= 2
                if limit_bytes > most_bytes:
                    raise
                connection.execute(f"SET memory_limit = '{limit_bytes}B'")
    finally:
        if limit_bytes != first_bytes:
            connection.execute(f"SET memory_limit = '{first_bytes}B'")


def _bytes(size: str) -> int:
    """The bytes of a size as DuckDB words it, like `96.0 MiB`."""
    number, unit = size.split()
    return round(float(number) * 1024.0 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))
