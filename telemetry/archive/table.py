"""The archive: a Delta table of daily Parquet partitions. Opens and reads it; operations/ changes it.

    archive/date=YYYY-MM-DD/<commit number>-<random>.parquet    sorted by (device_id, timestamp, id), made by a save
    archive/date=YYYY-MM-DD/import-<bits>-<random>.parquet      the same, made by an import; the bits are the
                                                                random ones of its commit number
    archive/date=YYYY-MM-DD/compact-<random>.parquet            the same, several of these merged, or one without
                                                                deleted records
    archive/_delta_log/<version>.json                           one commit each; periodic checkpoints
    archive/_backup/<random>/                                   hard links to files that a running backup needs

`date` is the UTC day of `timestamp`. Arrow writes the files (parquet_writer.py), DuckDB reads them; `deltalake` manages
only the log. A save's files and its transaction ("whimbrel-<shard>", commit number) are one commit. An import's commit
has a further transaction with its progress ("import-<name>-<shard>"), so that each row is imported once, and others
with the ids of its records ("import-<name>-<shard>-batch…"), by which it can be undone. Ids of records with another
transport than `import` are also recorded in "import-otherwise-<shard>…". A compaction's added and removed files and its
transaction ("compact-<date>", a count) are one commit, too: a plan made with an older handle is rejected. So are the
commits of a deletion, which have its name (operations/erasures.py). Parquet files are never overwritten. Readers must
not list the folder: files of failed attempts, and files replaced by a compaction, remain next to the live ones until
cleanup.

A commit number is a count * 2^32 + 32 random bits: it increases, and is never used by two saves.
"""

from __future__ import annotations

import re
import secrets
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from telemetry.archive import commit_log
from telemetry.archive.data_files import DataFiles, LiveFile
from telemetry.archive.log_retention import Held, nothing_held
from telemetry.archive.schema import COLUMNS, LAYOUT, TIME
from telemetry.archive.table_cache import TableCache
from telemetry.model.errors import LayoutError
from telemetry.system.failpoints import Step, no_step_reporter
from telemetry.system.fsync import fsync, make_folder

READ_ERRORS = (DeltaError, OSError)
"""Errors of opening and reading a table whose log is damaged or not readable."""

IMPORTED = "import"
"""Prefix of the names of an import's files and transactions."""

LOG = "_delta_log"

BACKUP = "_backup"
"""Name with a prefix that tools for Delta tables ignore."""

CHECKPOINT_COMMITS = 100
"""Maximum number of commits between checkpoints, which readers start from and which allow older entries to be
deleted."""

LAYOUT_KEY = "whimbrel.layout"
"""The table's property with its layout (schema.py). A table without it has layout 1."""

_DELTA_TYPES = {pa.string(): "string", TIME: "timestamp", pa.int64(): "long", pa.float64(): "double"}
DELTA_SCHEMA = Schema(
    [Field(field.name, PrimitiveType(_DELTA_TYPES[field.type])) for field in COLUMNS]
    + [Field("date", PrimitiveType("date"))]
)
CONFIGURATION = {
    "delta.checkpointInterval": str(CHECKPOINT_COMMITS),
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    LAYOUT_KEY: str(LAYOUT),
}


class Day(NamedTuple):
    """Files and records of a day in the table."""

    day: date
    files: int
    records: int
    size_bytes: int


def commit_number(previous: str, bits: int | None = None) -> str:
    """The next commit number: its count is one higher; its 32 random bits are `bits` or new ones."""
    return str(((int(previous) >> 32) + 1 << 32) + (secrets.randbits(32) if bits is None else bits))


def app_id(shard: int) -> str:
    """Name of the transaction with a shard's last commit number."""
    return f"whimbrel-{shard}"


def import_kind(bits: int) -> str:
    """Prefix of the names of an import's files whose commit number has these random bits."""
    return f"{IMPORTED}-{bits:08x}"


def kinds_of(commit: str) -> tuple[str, str]:
    """Prefixes of the names of a commit's files: as a save's, or as an import's."""
    return commit, import_kind(int(commit) % 2**32)


class Archive:
    """The table in the folder `root`. A returned handle must be used by one thread at a time and is never updated to a
    later version.

    `reached` is called with the name of each step before it. `held` returns the version up to which other programs no
    longer need the log (log_retention.py). `cache` keeps the open table of a thread.
    """

    def __init__(
        self, root: Path, reached: Step = no_step_reporter, held: Held = nothing_held, cache: TableCache | None = None
    ) -> None:
        self.root = root
        self._cache = cache
        self.data_files = DataFiles(root, reached)
        self.reached = reached
        self.held = held

    def open(self) -> DeltaTable:
        """`open_existing`, but creates a missing table: only for programs that begin an archive, never for readers."""
        return self.open_existing() or self._create()

    def open_existing(self) -> DeltaTable | None:
        """A handle of the newest version, None without a table; from the cache if that is current.

        Raises `LayoutError` if a newer release wrote it.
        """
        if self._cache is not None and (known := self._cache.newest(self.log_folder)) is not None:
            return known
        try:
            table = DeltaTable(str(self.root))
        except TableNotFoundError:
            return None
        if (layout := layout_of_table(table)) > LAYOUT:
            raise LayoutError(f"the archive {self.root}", layout, LAYOUT)
        if self._cache is not None:
            self._cache.note(table, self.log_folder)
        return table

    def _create(self) -> DeltaTable:
        make_folder(self.root)
        DeltaTable.create(
            str(self.root),
            DELTA_SCHEMA,
            mode="ignore",
            partition_by=["date"],
            configuration=CONFIGURATION,
            raise_if_key_not_exists=False,
        )
        self.make_last()
        fsync(self.root)
        return DeltaTable(str(self.root))

    def make_last(self) -> None:
        """Sync the log: before that, a power cut may undo a commit that other programs already see."""
        commit_log.make_last(self.log_folder)

    @property
    def log_folder(self) -> Path:
        """The folder of the commit log."""
        return commit_log.folder(self.root)

    def unlisted(self, table: DeltaTable) -> set[str]:
        """Absolute paths of the data files in the archive's folder that are not in the table."""
        return {str(path) for path in self.root.glob("date=*/*.parquet")} - set(self.files(table))

    def linked(self) -> set[str]:
        """Absolute paths of the links used by a running backup: their files must stay on disk until it ends."""
        return {str(path) for path in self.root.glob(f"{BACKUP}/*/date=*/*.parquet")}

    def live(self, table: DeltaTable) -> list[LiveFile]:
        """The files of the table."""
        actions = pa.table(table.get_add_actions(flatten=True))
        names = actions.schema.names
        empty = pa.nulls(actions.num_rows)

        def values(name: str) -> list[Any]:
            column = actions.column(name) if name in names else empty
            return (column.cast(pa.int64()) if column.type == TIME else column).to_pylist()  # type: ignore[no-any-return]

        return [
            LiveFile(
                str(self.root / unquote(path)), day, rows, size, made, d0, d1, t0, t1, r0 if r0 == r1 else None, i0, i1
            )
            for path, day, rows, size, made, d0, d1, t0, t1, r0, r1, i0, i1 in zip(
                *map(values, ("path", "partition.date", "num_records", "size_bytes", "modification_time")),
                *(
                    values(f"{end}.{name}")
                    for name in ("device_id", "timestamp", "transport")
                    for end in ("min", "max")
                ),
                values("min.id"),
                values("max.id"),
                strict=True,
            )
        ]

    def paths(self, table: DeltaTable) -> tuple[list[str], list[str]]:
        """Paths from the table's root of all data files and log files of this version.

        Raises `FileNotFoundError` if a part of the log was deleted meanwhile.
        """
        files = [str(Path(file.path).relative_to(self.root)) for file in self.live(table)]
        return files, commit_log.paths_of(self.log_folder, table.version())

    def files(self, table: DeltaTable) -> list[str]:
        """Absolute paths of the table's files."""
        return [file.path for file in self.live(table)]

    @staticmethod
    def days(table: DeltaTable) -> list[Day]:
        """Files and records of each day, oldest first."""
        actions = pa.table(table.get_add_actions(flatten=True)).group_by("partition.date")
        totals = actions.aggregate([("path", "count"), ("num_records", "sum"), ("size_bytes", "sum")])
        columns = ("partition.date", "path_count", "num_records_sum", "size_bytes_sum")
        rows = zip(*(totals.column(name).to_pylist() for name in columns), strict=True)
        return sorted(Day(day, files, records or 0, size) for day, files, records, size in rows)

    @staticmethod
    def changed_us(table: DeltaTable) -> int | None:
        """Time of the table's last commit, µs since epoch; None if its log entry was deleted."""
        return next((entry["timestamp"] * 1_000 for entry in table.history(1)), None)

    @staticmethod
    def begun_us(table: DeltaTable) -> int | None:
        """Time at which the table was created, µs since epoch; None if it is not recorded."""
        begun_ms = table.metadata().created_time
        return None if begun_ms is None else begun_ms * 1_000

    def log_stamp(self, table: DeltaTable) -> tuple[int, int] | None:
        """Identity of the log entry of the handle's version; None if it was deleted."""
        return commit_log.stamp(self.log_folder, table.version())

    def is_newest(self, table: DeltaTable) -> bool:
        """True if no commit followed the handle's version."""
        return commit_log.is_newest(self.log_folder, table.version())

    @staticmethod
    def committed(table: DeltaTable | None, shard: int) -> str:
        """The shard's last commit number, "0" without one or without a table."""
        return str(table.transaction_version(app_id(shard)) or 0) if table is not None else "0"

    @staticmethod
    def greatest_id(table: DeltaTable) -> int:
        """The greatest `id` of all records, 0 without records."""
        actions = pa.table(table.get_add_actions(flatten=True))
        if "max.id" not in actions.schema.names:
            return 0
        return int(pc.max(actions.column("max.id")).as_py() or 0)


def layout_of_table(table: DeltaTable, unwritten: int = 1) -> int:
    """A table's layout; `unwritten` if it has none."""
    return int(table.metadata().configuration.get(LAYOUT_KEY, unwritten))


def layout_property() -> dict[str, str]:
    """The table's property with the current layout."""
    return {LAYOUT_KEY: str(LAYOUT)}


def in_one_line(error: Exception) -> str:
    """The message of one of `READ_ERRORS` with its causes, without deltalake's stack trace."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    causes = [line.partition(_CAUSE)[2] for line in lines[1:] if line.strip().startswith(_CAUSE)]
    return ": ".join(line.strip() for line in (*lines[:1], *causes)) or type(error).__name__


_CAUSE = "\N{DOWNWARDS ARROW WITH TIP RIGHTWARDS}"
