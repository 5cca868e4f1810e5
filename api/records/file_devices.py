"""Devices of the archive's files, remembered: which files a question about some devices has to read.

A file never changes under its name. A day of a thousand devices takes 4.5 kB here, and 2 ms to look at the first time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

import duckdb
import pyarrow as pa

from api.records.row_group_reader import RowGroups
from api.snapshot.file_memory import FileMemory
from telemetry.archive.schema import sql_text

REMEMBERED_BYTES = 2**24
"""Memory limit for the devices of all files."""

ENTRY_BYTES, HASH_BYTES = 400, 4
"""Of a file, and of each of its devices."""


class FileDevices:
    """Remembers which devices a file has, for any number of threads.

    Devices are remembered as sorted hashes: a file may seem to have a device that it has not, one in 40,000 times where
    it has 100,000, and never the other way around.
    """

    def __init__(self, row_groups: RowGroups) -> None:
        self._row_groups = row_groups
        self._known: FileMemory[str, array[int]] = FileMemory(REMEMBERED_BYTES, _hashes_bytes)

    def among(self, connection: duckdb.DuckDBPyConnection, path: str, devices: Iterable[str]) -> list[str]:
        """Those of some devices that a file may have records of. Raises what DuckDB raises."""
        hashes = self._hashes(connection, path)
        return [device for device in devices if _has(hashes, crc32(device.encode()))]

    def _hashes(self, connection: duckdb.DuckDBPyConnection, path: str) -> array[int]:
        found = self._known.get(path)
        if found is None:
            found = array("I", sorted({crc32(device) for device in self._devices(connection, path)}))
            self._known.put(path, found)
        return found

    def _devices(self, connection: duckdb.DuckDBPyConnection, path: str) -> Iterable[bytes]:
        """All devices of a file, perhaps some of them twice: of its dictionaries, or else of its rows."""
        try:
            found = self._row_groups.devices(path)
        except (OSError, pa.ArrowException):
            found = None  # DuckDB says what is wrong with a file
        return _distinct(connection, path) if found is None else found


def _distinct(connection: duckdb.DuckDBPyConnection, path: str) -> Iterator[bytes]:
    source = f"read_parquet({sql_text(path)}, hive_partitioning = false)"
    for batch in connection.sql(f"SELECT DISTINCT device_id FROM {source}").to_arrow_reader():
        yield from batch.column(0).cast(pa.binary()).to_pylist()


def _has(hashes: Sequence[int], wanted: int) -> bool:
    at = bisect_left(hashes, wanted)
    return at < len(hashes) and hashes[at] == wanted


def _hashes_bytes(hashes: Sequence[int]) -> int:
    return ENTRY_BYTES + HASH_BYTES * len(hashes)
