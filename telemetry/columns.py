"""The columns of the archive's files, records as such columns, and DuckDB, which writes and reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa

from telemetry.record import Stored

pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own gives little back: under load 50 MB more in each program

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
