"""Number of records of each device and its first arrival. Files never change, so each is counted once and cached."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.requests.params import MAX_DEVICES
from api.snapshot.snapshot import Snapshots, Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import seen_sql, sql_text
from telemetry.model.record import EARLIEST_US, LATEST_US

MAX_CACHED_BYTES = 2**26
"""Memory limit for cached counts. A device of a file uses 16 bytes and its id."""

BATCH_FILES, BATCH_ROWS = 500, 100_000
"""Maximum files and rows counted by one statement. A file with more rows has a statement of its own."""


class Count(NamedTuple):
    """Number of records of a device, and the arrival of the first, or its time of measurement if it was imported; µs
    since epoch."""

    records: int
    first_seen_us: int


class Counts:
    """Counts records of devices; caches the counts of the files used last."""

    def __init__(self, snapshots: Snapshots, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        self._snapshots = snapshots
        self._max_cached_bytes = max_cached_bytes
        self._cache: OrderedDict[str, pa.Table] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def of(self, connection: duckdb.DuckDBPyConnection, devices: Sequence[str]) -> dict[str, Count]:
        """Counts of `devices` (sorted by id), from one snapshot. Devices without records are left out."""
        named = devices if len(devices) <= MAX_DEVICES else ()
        snapshot = self._snapshots.take(Wanted(named, EARLIEST_US, LATEST_US))
        blocks = snapshot.blocks
        tail = pa.table(
            [
                [block.device_id for block in blocks],
                [len(block.ids) for block in blocks],
                [block.received_ms * 1_000 for block in blocks],
            ],
            schema=_SCHEMA,
        )
        file_counts = self._count_files(connection, snapshot.files, snapshot.shards)
        connection.register("counts", pa.concat_tables([*file_counts, tail]))
        connection.register("asked", pa.table({"device_id": pa.array(devices, pa.string())}))
        rows = connection.execute(
            "SELECT device_id, sum(records)::BIGINT, min(first_us) FROM counts SEMI JOIN asked USING (device_id) "
            "GROUP BY device_id"
        ).fetchall()
        return {device: Count(records, first_us) for device, records, first_us in rows}

    def _count_files(
        self, connection: duckdb.DuckDBPyConnection, files: Sequence[LiveFile], shards: int
    ) -> list[pa.Table]:
        paths = [file.path for file in files]
        with self._lock:
            counts = {path: self._cache[path] for path in paths if path in self._cache}
        new = [file for file in files if file.path not in counts]
        imported = self._snapshots.imported_otherwise(shards) if new else []
        for batch in _batches(new):
            counts |= _count(connection, batch, imported)
        with self._lock:
            self._store(counts)
        return list(counts.values())

    def _store(self, counts: dict[str, pa.Table]) -> None:
        """Add counts to the cache, and evict the least recently used above the memory limit."""
        for path, table in counts.items():
            if path not in self._cache:
                self._cached_bytes += table.nbytes
                self._cache[path] = table
            self._cache.move_to_end(path)
        while self._cache and self._cached_bytes > self._max_cached_bytes:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes


_SCHEMA = pa.schema({"device_id": pa.string(), "records": pa.int64(), "first_us": pa.int64()})


def _batches(files: Sequence[LiveFile]) -> Iterator[list[LiveFile]]:
    batch: list[LiveFile] = []
    rows = 0
    for file in files:
        file_rows = BATCH_ROWS if file.rows is None else file.rows
        if batch and (len(batch) == BATCH_FILES or rows + file_rows > BATCH_ROWS):
            yield batch
            batch, rows = [], 0
        batch.append(file)
        rows += file_rows
    if batch:
        yield batch


def _count(
    connection: duckdb.DuckDBPyConnection, files: Sequence[LiveFile], imported: Sequence[range]
) -> dict[str, pa.Table]:
    """Path → counts of each file. One statement for all is much faster than one for each small file."""
    seen = seen_sql(dict.fromkeys(ids for file in files for ids in file.ids_among(imported)))
    listed = ", ".join(sql_text(file.path) for file in files)
    found = connection.sql(
        f"SELECT filename, device_id, count(*) AS records, epoch_us(min({seen})) AS first_us "
        f"FROM read_parquet([{listed}], hive_partitioning = false, filename = true) GROUP BY ALL ORDER BY filename"
    ).to_arrow_table()
    counts, at = found.select(_SCHEMA.names).cast(_SCHEMA), 0
    tables = {file.path: _SCHEMA.empty_table() for file in files}
    for run in pc.value_counts(found.column("filename")).to_pylist():
        tables[run["values"]] = counts.slice(at, run["counts"])
        at += run["counts"]
    return tables
