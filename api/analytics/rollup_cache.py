"""Caches the sums of each device and hour for each file of the archive.

A file never changes under its name, so its sums never become stale. docs/decisions/0032-whole-hours.md has the figures.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from api.snapshot.file_memory import FileMemory
from telemetry.archive.schema import sql_text
from telemetry.model.utc import HOUR_US

REMEMBERED_BYTES, ENTRY_BYTES = 2**25, 2_000
"""Memory limit of all sums, and the overhead of each file. The sums of one request always fit."""

MIN_RECORDS = 8
"""Minimum mean of records per device and hour: with fewer, the sums are too large compared with the records."""

_SUMS = (
    f"SELECT device_id, epoch_us(timestamp) // {HOUR_US} * {HOUR_US} AS us, count(*) AS records, "
    "count(speed_kmh) AS speeds, sum(speed_kmh) AS speed_sum, max(speed_kmh) AS speed_max, "
    "epoch_us(min(timestamp)) AS first, epoch_us(max(timestamp)) AS last "
    "FROM read_parquet({path}, hive_partitioning = false) GROUP BY ALL LIMIT {max_rows} + 1"
)


class RollupCache:
    """The sums of files, within a memory limit. Any thread may use it."""

    def __init__(self) -> None:
        self._known: FileMemory[str, pa.Table] = FileMemory(REMEMBERED_BYTES, _bytes)

    def sums(
        self, connection: duckdb.DuckDBPyConnection, path: str, rows: int, may_read: bool = True
    ) -> pa.Table | None:
        """The sums of a file with `rows` rows, in any order.

        None if the file has too few records per device and hour, or if it is not cached and `may_read` is false.
        Raises DuckDB's errors.

        Columns, for each device and hour: `device_id`, the start of the hour `us`, the number of `records` and of
        `speeds` (records with a speed), their `speed_sum` and `speed_max`, and the `first` and `last` time, in µs.
        """
        sums = self._known.get(path)
        if sums is None:
            if not may_read:
                return None
            sums = _sums(connection, path, rows // MIN_RECORDS)
            self._known.put(path, sums)
        return sums if sums.num_rows else None


def _bytes(sums: pa.Table) -> int:
    return ENTRY_BYTES + int(sums.nbytes)


def _sums(connection: duckdb.DuckDBPyConnection, path: str, max_rows: int) -> pa.Table:
    """A file's sums; an empty table if there are more than `max_rows`."""
    sums = connection.sql(_SUMS.format(path=sql_text(path), max_rows=max_rows)).to_arrow_table()
    if sums.num_rows > max_rows:
        sums = sums.slice(0, 0)
    devices = sums.column("device_id").dictionary_encode()
    return sums.set_column(0, "device_id", devices).combine_chunks()
