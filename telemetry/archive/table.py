"""The archive: a Delta table of daily Parquet partitions. Only this file knows its layout.

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
commits of a deletion, which have its name (`DELETION`). Parquet files are never overwritten. Readers must not list the
folder: files of failed attempts, and files replaced by a compaction, remain next to the live ones until cleanup.

A commit number is a count * 2^32 + 32 random bits: it increases, and is never used by two saves.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction

from telemetry.archive import commit_log
from telemetry.archive.data_files import COMPACTED, DataFile, DataFiles, LiveFile
from telemetry.archive.log_retention import Held, holds_entries, nothing_held
from telemetry.archive.schema import COLUMNS, LAYOUT, TIME
from telemetry.archive.table_cache import TableCache
from telemetry.model.errors import IntentChanged, LayoutError, PlanOutdated
from telemetry.system.failpoints import Step, no_step_reporter
from telemetry.system.fsync import fsync, make_folder

log = logging.getLogger(__name__)

READ_ERRORS = (DeltaError, OSError)
"""Errors of opening and reading a table whose log is damaged or not readable."""

IMPORTED = "import"
"""Prefix of the names of an import's files and transactions."""

DELETION, DELETED_DAY, DELETED_RECORDS, DELETED_FILES = (
    f"whimbrel.{name}" for name in ("deletion", "day", "deleted_records", "deleted_files")
)
"""Fields in `commitInfo` of a deletion's commit: its name, the day of the records, their number, the number of files.
The device is not recorded."""

LOG = "_delta_log"

BACKUP = "_backup"
"""Name with a prefix that tools for Delta tables ignore."""

LAYOUT_KEY = "whimbrel.layout"
"""The table's property with its layout (schema.py). A table without it has layout 1."""

FEWEST_COMMITS, CHECKPOINT_COMMITS = 20, 100
"""Minimum and maximum number of commits between checkpoints, which readers start from and which allow older entries to
be deleted. The interval increases with the size of the previous checkpoint."""

COMMIT_BYTES = 4_096
"""Size of the previous checkpoint per commit, from which the interval is computed. An entry takes about 1,000 bytes, so
checkpoints take at most four times its space. Programs that open the table read all entries since the checkpoint."""

LOG_KEPT_S = 86_400
"""Retention of the log, as in the table's properties."""

_DELTA_TYPES = {pa.string(): "string", TIME: "timestamp", pa.int64(): "long", pa.float64(): "double"}
_DELTA_SCHEMA = Schema(
    [Field(field.name, PrimitiveType(_DELTA_TYPES[field.type])) for field in COLUMNS]
    + [Field("date", PrimitiveType("date"))]
)
_CONFIGURATION = {
    "delta.checkpointInterval": str(CHECKPOINT_COMMITS),
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    LAYOUT_KEY: str(LAYOUT),
}


_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class Erased(NamedTuple):
    """Records that one commit of a deletion removed: their day, number, and number of files."""

    day: str
    records: int
    files: int


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


UNDONE_ROWS = 2**61
"""Rows in the progress of an undone import: more than any source has, so that the import cannot continue."""


class Progress(NamedTuple):
    """Progress of an import in one shard: the number of processed rows, valid or not, and whether these are all.

    For an undone import: `UNDONE_ROWS`, and whether all of its records are deleted.
    """

    rows: int = 0
    is_whole: bool = False

    @property
    def is_undone(self) -> bool:
        """True if an undo of the import has begun."""
        return self.rows >= UNDONE_ROWS

    @property
    def version(self) -> int:
        """The version of its transaction: it increases, also when the last row turns out to be the last."""
        return 2 * self.rows + self.is_whole


class Imported(NamedTuple):
    """An import's part of a commit: its name, its progress, the ids of the records, and whether some of them have
    another transport than `import`.
    """

    name: str
    progress: Progress
    ids: range
    has_other_transports: bool = False


def _import_id(name: str, shard: int) -> str:
    """Name of the transaction with an import's progress in a shard."""
    return f"{IMPORTED}-{name}-{shard}"


def _otherwise_id(shard: int) -> str:
    """Name of the transaction with the number of a shard's ranges for `imported_otherwise`."""
    return f"{IMPORTED}-otherwise-{shard}"


class Archive:
    """The table in the folder `root`. A returned handle must be used by one thread at a time and is never updated to a
    later version.

    `reached` is called with the name of each step before it. `held` returns the version up to which other programs no
    longer need the log (log_retention.py). `opened` caches the open table for a thread.
    """

    def __init__(
        self, root: Path, reached: Step = no_step_reporter, held: Held = nothing_held, cache: TableCache | None = None
    ) -> None:
        self.root = root
        self._cache = cache
        self.data_files = DataFiles(root, reached)
        self._reached = reached
        self._held = held

    def open(self) -> DeltaTable:
        """`open_existing`, but creates a missing table: only for programs that begin an archive, never for readers."""
        return self.open_existing() or self._create()

    def open_existing(self) -> DeltaTable | None:
        """A handle of the newest version, None without a table; from the cache `opened` if it is current.

        Raises `LayoutError` if a newer release wrote it.
        """
        if self._cache is not None and (known := self._cache.newest(self._log)) is not None:
            return known
        try:
            table = DeltaTable(str(self.root))
        except TableNotFoundError:
            return None
        if (layout := layout_of_table(table)) > LAYOUT:
            raise LayoutError(f"the archive {self.root}", layout, LAYOUT)
        if self._cache is not None:
            self._cache.note(table, self._log)
        return table

    def _create(self) -> DeltaTable:
        make_folder(self.root)
        DeltaTable.create(
            str(self.root),
            _DELTA_SCHEMA,
            mode="ignore",
            partition_by=["date"],
            configuration=_CONFIGURATION,
            raise_if_key_not_exists=False,
        )
        self.make_last()
        fsync(self.root)
        return DeltaTable(str(self.root))

    def upgrade(self) -> list[str]:
        """Upgrade a table of an older release to the current layout by adding the missing columns, which are null in
        existing files. No file is changed. Synced on return. Returns the columns.
        """
        added: list[str] = []
        while (table := self.open_existing()) is not None and layout_of_table(table, unwritten=0) < LAYOUT:
            has = {field.name for field in table.schema().fields}
            lacking = [field for field in _DELTA_SCHEMA.fields if field.name not in has]
            try:
                if lacking:
                    table.alter.add_columns(lacking, post_commithook_properties=_NO_HOOKS)
                    table = DeltaTable(str(self.root))
                table.alter.set_table_properties(
                    {LAYOUT_KEY: str(LAYOUT)}, raise_if_not_exists=False, post_commithook_properties=_NO_HOOKS
                )
            except CommitFailedError:  # another program upgrades it, too: check again
                continue
            added += [field.name for field in lacking]
            self.make_last()
        return added

    # Committing --------------------------------------------------------------------------------------

    def commit(
        self,
        table: DeltaTable,
        files: Sequence[DataFile],
        shard: int,
        commit: str,
        now_ms: int,
        imported: Imported | None = None,
    ) -> None:
        """Add `files` and the shard's commit number to the table in one commit, synced on return.

        With `imported` the commit also has the import's new progress and its records' ids.

        `table` must be the handle from which the shard's commit number was read: only that handle detects a commit that
        another worker made since then (guard 3). Raises `IntentChanged` if there was one.
        """
        transactions = [Transaction(app_id(shard), int(commit))]
        if imported is not None:
            transactions.append(Transaction(_import_id(imported.name, shard), imported.progress.version))
            transactions += self._noting_ids(table, imported.name, shard, imported.ids)
            if imported.has_other_transports:
                transactions += self._noting_otherwise(table, shard, imported.ids)
        try:
            self._commit(table, self._added(files, now_ms, is_new=True), *transactions)
        except CommitFailedError as error:
            raise IntentChanged(f"cannot commit: another worker committed first: {error}") from error

    def note_progress(self, table: DeltaTable, name: str, shard: int, progress: Progress) -> None:
        """Record an import's progress without records; otherwise like `commit`."""
        try:
            noted = self._noting_ids(table, name, shard)
            self._commit(table, [], Transaction(_import_id(name, shard), progress.version), *noted)
        except CommitFailedError as error:
            raise IntentChanged(f"cannot record an import's progress: another worker did first: {error}") from error

    def _noting_ids(self, table: DeltaTable, name: str, shard: int, ids: range | None = None) -> list[Transaction]:
        """Transactions that record the ids of a batch; none for an import begun by a release without them."""
        batches = self._id_batches(table, name, shard)
        if batches is None and self.progress(table, name, shard) is not None:
            return []
        key, number = f"{_import_id(name, shard)}-batch", batches or 0
        if ids is None:
            return [Transaction(f"{key}es", 0)] if batches is None else []
        first, after = Transaction(f"{key}-{number}-first", ids.start), Transaction(f"{key}-{number}-after", ids.stop)
        return [Transaction(f"{key}es", number + 1), first, after]

    @staticmethod
    def _id_batches(table: DeltaTable, name: str, shard: int) -> int | None:
        """Number of batches with recorded ids; None if there are no records of ids."""
        return table.transaction_version(f"{_import_id(name, shard)}-batches")

    def imported_ids(self, table: DeltaTable, name: str, shard: int, shards: int) -> list[range] | None:
        """Ids of an import's records in a shard; None if a release imported them that did not record ids."""
        batches = self._id_batches(table, name, shard)
        if batches is None:
            return None if self.progress(table, name, shard) is not None else []
        key = f"{_import_id(name, shard)}-batch"
        bounds = [
            [table.transaction_version(f"{key}-{n}-{end}") or 0 for end in ("first", "after")] for n in range(batches)
        ]
        return [range(first, after, shards) for first, after in bounds]

    @staticmethod
    def _noting_otherwise(table: DeltaTable, shard: int, ids: range) -> list[Transaction]:
        """Transactions that record these ids for `imported_otherwise`; the last range is extended if they follow it."""
        key = _otherwise_id(shard)
        ranges = table.transaction_version(key) or 0
        last_after = f"{key}-{ranges - 1}-after"
        if ranges and table.transaction_version(last_after) == ids.start:
            return [Transaction(last_after, ids.stop)]
        first, after = Transaction(f"{key}-{ranges}-first", ids.start), Transaction(f"{key}-{ranges}-after", ids.stop)
        return [Transaction(key, ranges + 1), first, after]

    @staticmethod
    def imported_otherwise(
        table: DeltaTable | None, shard: int, shards: int, known: Sequence[range] = ()
    ) -> list[range]:
        """Ids of a shard's imported records whose files named another transport than `import`; without imports by
        releases that did not record them.

        A range takes about a millisecond to read. Ranges `known` from an older version are not read again, except the
        last, which may have grown.
        """
        if table is None:
            return []
        key, ranges = _otherwise_id(shard), list(known[:-1])
        for n in range(len(ranges), table.transaction_version(key) or 0):
            first, after = (table.transaction_version(f"{key}-{n}-{end}") or 0 for end in ("first", "after"))
            ranges.append(range(first, after, shards))
        return ranges

    def replace(self, table: DeltaTable, old: Sequence[LiveFile], new: Sequence[DataFile], now_ms: int) -> None:
        """Replace `old` by `new`, which have the same rows, in one commit, synced on return.

        `table` must be the handle from which `old` was read; all files have the same day. Raises `PlanOutdated` if
        another compaction, retention or cleanup changed that day meanwhile.
        """
        self._commit_days(
            table, [old[0].day], [*self._added(new, now_ms, is_new=False), *self._removed(old, now_ms, is_lost=False)]
        )

    def give_up(self, table: DeltaTable, files: Sequence[LiveFile], now_ms: int) -> None:
        """Remove files of some days, and their rows, from the table; otherwise like `replace`."""
        self._commit_days(table, sorted({file.day for file in files}), self._removed(files, now_ms, is_lost=True))

    def erase(
        self, table: DeltaTable, old: Sequence[LiveFile], new: Sequence[DataFile], now_ms: int, name: str, records: int
    ) -> None:
        """Replace `old` by `new`, which have `records` fewer; otherwise like `replace`. `name` is a deletion's."""
        info = {DELETION: name, DELETED_DAY: old[0].day.isoformat()}
        info |= {DELETED_RECORDS: str(records), DELETED_FILES: str(len(old))}
        actions = [*self._added(new, now_ms, is_new=True), *self._removed(old, now_ms, is_lost=True)]
        self._commit_days(table, [old[0].day], actions, info)

    def erased(self, name: str, after: int, upto: int) -> list[Erased]:
        """Records removed by a deletion's commits in the versions after `after`, up to `upto`."""
        removals = []
        for version in range(after + 1, upto + 1):
            entry = commit_log.entry(self._log, version) or b""
            if name.encode() in entry:
                info = json.loads(entry.splitlines()[0])["commitInfo"]
                removals.append(Erased(info[DELETED_DAY], int(info[DELETED_RECORDS]), int(info[DELETED_FILES])))
        return removals

    def fence(self, table: DeltaTable, day: date) -> None:
        """Make the commits of all compactions of a day fail that were planned before."""
        self._commit_days(table, [day], [])

    def _commit_days(
        self,
        table: DeltaTable,
        days: Sequence[date],
        actions: Sequence[AddAction | RemoveAction],
        info: Mapping[str, str] | None = None,
    ) -> None:
        names = [f"{COMPACTED}-{day.isoformat()}" for day in days]
        transactions = [Transaction(name, (table.transaction_version(name) or 0) + 1) for name in names]
        try:
            self._commit(table, actions, *transactions, info=info)
        except CommitFailedError as error:
            which = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
            raise PlanOutdated(f"cannot change the files of {which}: another process changed them: {error}") from error

    def _commit(
        self,
        table: DeltaTable,
        actions: Sequence[AddAction | RemoveAction],
        *transactions: Transaction,
        info: Mapping[str, str] | None = None,
    ) -> None:
        table.create_write_transaction(
            list(actions),
            mode="append",
            schema=table.schema(),
            partition_by=["date"],
            commit_properties=CommitProperties(
                app_transactions=list(transactions),
                max_commit_retries=20,
                custom_metadata={commit_log.ACTIONS: str(len(actions) + len(transactions)), **(info or {})},
            ),
            post_commithook_properties=_NO_HOOKS,
        )
        self._reached("make last")
        self.make_last()
        self._shorten_log(table)

    def forget_past(self, now_s: float) -> bool:
        """Shorten the log if its oldest entry has twice the age of its retention, whatever the number of commits since.

        This also deletes statistics of removed files, like their first and last device. Returns True if it did.
        """
        table = self.open_existing()
        oldest = min(commit_log.entries(self._log), default=None)
        age_s = None if oldest is None else commit_log.entry_age_s(self._log, oldest, now_s)
        if table is None or age_s is None or age_s < 2 * LOG_KEPT_S or holds_entries(self._log, self._held()):
            return False
        self._checkpoint()
        return True

    def _shorten_log(self, table: DeltaTable) -> None:
        """Make a checkpoint if it is due, and delete the entries that it replaces once it is on disk."""
        before = commit_log.newest_checkpoint(self._log)
        enough = max(FEWEST_COMMITS, commit_log.checkpoint_bytes(self._log, before) // COMMIT_BYTES)
        if table.version() + 1 - max(before, 0) >= min(enough, CHECKPOINT_COMMITS):
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Uses a separate handle: those returned to callers must stay at their version, or guard 3 would not work."""
        try:
            table = DeltaTable(str(self.root))
            table.create_checkpoint()
            self.make_last()
            if not holds_entries(self._log, self._held()):
                table.cleanup_metadata()
        except READ_ERRORS as error:
            log.warning("cannot make a checkpoint, so the archive's log stays long: %s", in_one_line(error))

    def _added(self, files: Sequence[DataFile], now_ms: int, is_new: bool) -> list[AddAction | RemoveAction]:
        """Raises `FileNotFoundError` if cleanup deleted a file as the leftover of a failed attempt."""
        for file in files:
            (self.root / file.path).stat()
        return [
            AddAction(
                path=file.path,
                size=file.size_bytes,
                partition_values={"date": file.day.isoformat()},
                modification_time=now_ms,
                data_change=is_new,
                stats=file.stats,
            )
            for file in files
        ]

    def _removed(self, files: Sequence[LiveFile], now_ms: int, is_lost: bool) -> list[AddAction | RemoveAction]:
        return [
            RemoveAction(
                str(Path(file.path).relative_to(self.root)),
                is_lost,
                now_ms,
                file.size_bytes,
                {"date": file.day.isoformat()},
            )
            for file in files
        ]

    def make_last(self) -> None:
        """Sync the log: before that, a power cut may undo a commit that other programs already see."""
        commit_log.make_last(self._log)

    def mend(self) -> None:
        """Remove commits torn by a power cut, which no program had relied on. The table may be in use."""
        try:
            torn = commit_log.mend(self._log)
        except FileNotFoundError:
            return  # no table yet
        except OSError as error:
            log.error("cannot check the archive's log: %s", error)  # opening the table reports it, too
            return
        for name in torn:
            log.error("a power cut damaged the archive's log; it is repaired, and the damaged file is %s", name)

    @property
    def _log(self) -> Path:
        return commit_log.folder(self.root)

    def unlisted(self, table: DeltaTable) -> set[str]:
        """Absolute paths of the data files in the archive's folder that are not in the table."""
        return {str(path) for path in self.root.glob("date=*/*.parquet")} - set(self.files(table))

    def linked(self) -> set[str]:
        """Absolute paths of the links used by a running backup: their files must stay on disk until it ends."""
        return {str(path) for path in self.root.glob(f"{BACKUP}/*/date=*/*.parquet")}

    # Reading -----------------------------------------------------------------------------------------

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
        return files, commit_log.paths_of(self._log, table.version())

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
        return commit_log.stamp(self._log, table.version())

    def is_newest(self, table: DeltaTable) -> bool:
        """True if no commit followed the handle's version."""
        return commit_log.is_newest(self._log, table.version())

    @staticmethod
    def committed(table: DeltaTable | None, shard: int) -> str:
        """The shard's last commit number, "0" without one or without a table."""
        return str(table.transaction_version(app_id(shard)) or 0) if table is not None else "0"

    @staticmethod
    def progress(table: DeltaTable | None, name: str, shard: int) -> Progress | None:
        """Progress of the import in a shard; None if it has not begun there."""
        version = table.transaction_version(_import_id(name, shard)) if table is not None else None
        return None if version is None else Progress(version // 2, version % 2 == 1)

    def imported(self, table: DeltaTable, commit: str) -> list[str]:
        """Absolute paths of the files of an import's commit that still exist."""
        kind = import_kind(int(commit) % 2**32)
        return [path for path in self.files(table) if Path(path).name.startswith(f"{kind}-")]

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


def in_one_line(error: Exception) -> str:
    """The message of one of `READ_ERRORS` with its causes, without deltalake's stack trace."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    causes = [line.partition(_CAUSE)[2] for line in lines[1:] if line.strip().startswith(_CAUSE)]
    return ": ".join(line.strip() for line in (*lines[:1], *causes)) or type(error).__name__


_CAUSE = "\N{DOWNWARDS ARROW WITH TIP RIGHTWARDS}"
