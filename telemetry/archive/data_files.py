"""The archive's Parquet files: written from records, merged, rewritten without deleted records.

Arrow writes them (parquet_writer.py); DuckDB writes those whose rows must be sorted or filtered. Files are never
overwritten, and are not in the table until a commit names them (table.py). Files of failed attempts remain until
cleanup.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from telemetry.archive.parquet_writer import FileWriter
from telemetry.archive.schema import (
    BOUNDED,
    COLUMNS,
    LAYOUT,
    ORDER,
    TIME,
    days_of,
    file_name,
    in_order,
    is_sorted,
    layout_of,
    records_sql,
    sql_text,
    with_memory,
)
from telemetry.archive.sorted_merge import SCHEMA, NotSorted, ahead, cut, merged
from telemetry.model.errors import ArchiveError
from telemetry.model.utc import day_of, iso
from telemetry.system.failpoints import Step
from telemetry.system.fsync import fsync

log = logging.getLogger(__name__)

ROW_GROUPS = 32
"""Row groups per file. More make a file slower to scan, fewer make a device's day slower to read."""

LEAST_GROUP_ROWS, ROW_GROUP_ROWS = 8_192, 122_880
SAVED_GROUP_ROWS = 16_384
"""Minimum rows of a group in a save's file, if it has enough rows: beginning and ending groups takes time, and such
files are soon merged."""

VECTOR_ROWS = 2_048
"""Row groups have a multiple of DuckDB's vector size."""

MERGED_LEVEL = 6
"""zstd level for files that DuckDB writes: a compromise of time and size (docs/performance.md)."""

MOST_MEMORY_BYTES = 2**31
"""Memory limit for sorting, bytes, if the setting is too low: a file of 128 MB of texts needs about 1 GB."""

COMPACTED = "compact"
"""Prefix of the names of a compaction's files and transactions."""


class DataFile(NamedTuple):
    """A Parquet file of the archive: path from the table's root, day, and statistics for the log."""

    path: str
    day: date
    size_bytes: int
    stats: str


class LiveFile(NamedTuple):
    """A file of the table, with the log's statistics of its records; None if the log has none."""

    path: str
    day: date
    rows: int | None
    size_bytes: int
    made_ms: int
    first_device: str | None
    last_device: str | None
    first_us: int | None
    last_us: int | None
    transport: str | None
    """The transport of all its records, if it is the same."""

    least_id: int | None = None
    greatest_id: int | None = None

    def ids_among(self, ids: Iterable[range]) -> list[range]:
        """The ranges that may overlap with the ids in this file, by the log's statistics."""
        least, greatest = self.least_id, self.greatest_id
        if least is None or greatest is None:
            return list(ids)
        return [ids_range for ids_range in ids if least < ids_range.stop and ids_range.start <= greatest]

    def may_hold(self, start_us: int, end_us: int, devices: Sequence[str]) -> bool:
        """True if the file may have records in the half-open range, and of `devices` unless empty."""
        if self.first_us is not None and self.last_us is not None:
            if not (self.first_us < end_us and start_us <= self.last_us):
                return False
        elif not day_of(start_us) <= self.day <= day_of(end_us - 1):
            return False
        if not devices or self.first_device is None or self.last_device is None:
            return True
        return any(self.first_device <= device <= self.last_device for device in devices)


class DataFiles:
    """Makes the files of the table in the folder `root`. `reached` is called before each step."""

    def __init__(self, root: Path, reached: Step) -> None:
        self.root = root
        self._reached = reached

    def write(self, records: pa.Table, commit: str) -> list[DataFile]:
        """Write `records` (with `COLUMNS`) sorted to new files, one per day, and sync them.

        The files are not in the table until `commit` names them.
        """
        files: list[DataFile] = []
        try:
            for day, day_records in days_of(records):
                files.append(self._write_day(day, day_records, commit))
            self._sync([file.path for file in files])
        except OSError:
            for file in files:  # on a full disk, leftovers of each attempt would use up the space for the next
                (self.root / file.path).unlink(missing_ok=True)
            raise
        return files

    def _write_day(self, day: date, records: pa.Table, commit: str) -> DataFile:
        path = self._new_path(day, commit)
        with FileWriter(
            self.root / path, max(_group_rows(records.num_rows), SAVED_GROUP_ROWS), is_merged=False
        ) as writer:
            writer.add(records if is_sorted(records) else in_order(records))
        return self._written(path, day, writer)

    def _written(self, path: str, day: date, writer: FileWriter) -> DataFile:
        return DataFile(path, day, (self.root / path).stat().st_size, _stats(writer.rows, writer.bounds))

    def _new_path(self, day: date, kind: str) -> str:
        """Path of a new file; its folder is created."""
        folder = f"date={day.isoformat()}"
        (self.root / folder).mkdir(exist_ok=True)
        return f"{folder}/{file_name(kind, secrets.token_hex(8))}"

    def _copy(self, connection: duckdb.DuckDBPyConnection, select: str, rows: int, day: date, kind: str) -> str:
        """Write the result of `select` to a new file of a day, in its order; not yet synced."""
        path = self._new_path(day, kind)
        connection.execute(
            f"COPY ({select}) TO {sql_text(str(self.root / path))} "
            f"(FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL {MERGED_LEVEL}, "
            f"ROW_GROUP_SIZE {_group_rows(rows)})"
        )
        return path

    def merge(
        self, connection: Callable[[], duckdb.DuckDBPyConnection], files: Sequence[LiveFile], pieces: int
    ) -> list[DataFile]:
        """Write the rows of a day's files to `pieces` new files, sorted over all of them, and sync them.

        The files are not in the table until `replace` names them. DuckDB is used only if a file is not sorted, which
        Whimbrel's own files are. Raises `ArchiveError` if a row is missing.
        """
        day, rows = files[0].day, sum(file.rows or 0 for file in files)
        paths = [file.path for file in files]
        cuts = [rows * n // pieces for n in range(pieces + 1)]
        try:
            made = self._write_slices(cut(ahead(merged(paths)), cuts[1:-1]), rows // pieces, day)
        except NotSorted:
            log.warning("files of %s are not sorted; sorting all their rows", day)
            sorting = connection()
            made = with_memory(sorting, lambda: self._sort(sorting, paths, cuts, day), MOST_MEMORY_BYTES)
        self._sync([file.path for file, _ in made])
        if (written := sum(count for _, count in made)) != rows:
            raise ArchiveError(f"cannot merge files of {day}: they have {rows} rows, and {written} were written")
        return [file for file, _ in made]

    def _write_slices(
        self, slices: Iterable[tuple[int, pa.Table]], piece_rows: int, day: date
    ) -> list[tuple[DataFile, int]]:
        """Write each piece's rows to its own file. Returns the files with their numbers of rows."""
        made: list[tuple[DataFile, int]] = []
        try:
            for _, piece in groupby(slices, lambda numbered: numbered[0]):
                path = self._new_path(day, COMPACTED)
                with FileWriter(self.root / path, _group_rows(piece_rows), is_merged=True, schema=SCHEMA) as writer:
                    for _, rows in piece:
                        writer.add(rows)
                made.append((self._written(path, day, writer), writer.rows))
        except (OSError, NotSorted):  # on a full disk, leftovers of each attempt would use up the space for the next
            for file, _ in made:
                (self.root / file.path).unlink(missing_ok=True)
            raise
        return made

    def _sort(
        self, connection: duckdb.DuckDBPyConnection, paths: Sequence[str], cuts: Sequence[int], day: date
    ) -> list[tuple[DataFile, int]]:
        """`_write_slices` for unsorted files: sorts all rows."""
        sort = f"CREATE OR REPLACE TEMP TABLE merged AS SELECT * FROM {records_sql(paths)} {_ORDER}"
        try:
            connection.execute(sort)
            selects = {
                f"SELECT * FROM merged WHERE rowid >= {a} AND rowid < {b} {_ORDER}": b - a for a, b in pairwise(cuts)
            }
            made = [self._copy(connection, select, rows, day, COMPACTED) for select, rows in selects.items()]
        finally:
            connection.execute("DROP TABLE IF EXISTS merged")
        return [self._described(connection, path, day) for path in made]

    def _described(self, connection: duckdb.DuckDBPyConnection, path: str, day: date) -> tuple[DataFile, int]:
        """A file as it is on disk, and its number of rows."""
        file = self.root / path
        bounds = f"SELECT count(*), {_LEAST_AND_GREATEST} FROM read_parquet({sql_text(str(file))})"
        [row] = connection.execute(bounds).fetchall()
        return DataFile(
            path, day, file.stat().st_size, _stats(row[0], list(zip(row[1::2], row[2::2], strict=True)))
        ), row[0]

    def count(self, connection: duckdb.DuckDBPyConnection, file: LiveFile, condition: str) -> int:
        """Number of a file's records that match a condition in SQL."""
        source = f"read_parquet({sql_text(file.path)}, hive_partitioning = false)"
        [(number,)] = connection.execute(f"SELECT count(*) FROM {source} WHERE {condition}").fetchall()
        return int(number)

    def without(
        self, connection: duckdb.DuckDBPyConnection, file: LiveFile, condition: str, removed: int
    ) -> DataFile | None:
        """Rewrite a file without its `gone` records that match a condition, and sync it; None if no record remains.

        Streams the rows in their order, so that memory is limited. The new file is not in the table until `erase` names
        it. Raises `ArchiveError` if the number of remaining rows is not as expected.
        """
        [(rows,)] = connection.execute(
            "SELECT count(*) FROM read_parquet($1, hive_partitioning = false)", [file.path]
        ).fetchall()
        if rows == removed:
            return None
        order = "" if layout_of(file.path) == LAYOUT else f" {_ORDER}"
        select = f"SELECT * FROM {records_sql([file.path])} WHERE NOT ({condition}){order}"
        made = self._copy(connection, select, rows - removed, file.day, COMPACTED)
        self._sync([made])
        rewritten, written = self._described(connection, made, file.day)
        if written != rows - removed:
            raise ArchiveError(f"cannot delete {removed} of {rows} records of {file.path}: {written} remained")
        return rewritten

    def _sync(self, paths: Sequence[str]) -> None:
        """Sync files and their names to disk."""
        self._reached("sync")
        for path in paths:
            fsync(self.root / path)
        for folder in {(self.root / path).parent for path in paths} | ({self.root} if paths else set()):
            fsync(folder)


def _group_rows(rows: int) -> int:
    """Rows per group of a file with this number of rows."""
    return min(max(-(-rows // (ROW_GROUPS * VECTOR_ROWS)) * VECTOR_ROWS, LEAST_GROUP_ROWS), ROW_GROUP_ROWS)


_ORDER = f"ORDER BY {', '.join(ORDER)}"
_BOUNDS_SQL = [f"epoch_us({name})" if COLUMNS.field(name).type == TIME else name for name in BOUNDED]
_LEAST_AND_GREATEST = ", ".join(f"min({bound}), max({bound})" for bound in _BOUNDS_SQL)


def _stats(rows: int, bounds: Sequence[tuple[Any, Any]]) -> str:
    """A file's statistics for Delta's log. Times are exact: truncated to seconds they would hide records."""
    least, greatest = {}, {}
    for name, (low, high) in zip(BOUNDED, bounds, strict=True):
        timed = COLUMNS.field(name).type == TIME
        least[name], greatest[name] = (iso(low), iso(high)) if timed else (low, high)
    nulls = dict.fromkeys(BOUNDED, 0)
    return json.dumps({"numRecords": rows, "minValues": least, "maxValues": greatest, "nullCount": nulls})
