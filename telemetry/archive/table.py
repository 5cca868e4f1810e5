"""The archive: a Delta table of daily Parquet partitions. This file is all that knows its layout.

    archive/date=YYYY-MM-DD/<commit number>-<random>.parquet    sorted by (device_id, timestamp, id), made by a save
    archive/date=YYYY-MM-DD/import-<bits>-<random>.parquet      the same, made by an import; the bits are the
                                                                random ones of its commit number
    archive/date=YYYY-MM-DD/compact-<random>.parquet            the same, several of these merged, or one without what
                                                                was deleted
    archive/_delta_log/<version>.json                           one commit each; checkpoints now and then
    archive/_backup/<random>/                                   links to files that a backup under way has yet to copy

`date` is the day of `timestamp` in UTC. Arrow writes the files (parquet_writer.py), DuckDB reads them; `deltalake`
keeps the log and no more. A save's files and its transaction ("whimbrel-<shard>", commit number) are one commit; an
import's have one more transaction ("import-<name>-<shard>", how far it is), so that each of its rows comes in once, and
others with the ids of its records ("import-<name>-<shard>-batch…"), by which it is taken back, and once more the ids of
those that came by another transport than `import` ("import-otherwise-<shard>…"). So are the files that a
compaction adds and removes, and its transaction ("compact-<date>", a count): whoever planned with an older handle is
refused; a deletion's commits are such, with its name (`DELETION`). No Parquet file is ever overwritten, and nobody
globs the folder: files of failed attempts and of the time before a compaction lie beside the live ones, until the
sweep.

A commit number is a count * 2^32 + 32 random bits: it rises, and no two saves ever share one.
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
"""What opening and reading a table raises if its log is damaged or can't be read."""

IMPORTED = "import"
"""How the names of an import's files and transactions begin."""

DELETION, DELETED_DAY, DELETED_RECORDS, DELETED_FILES = (
    f"whimbrel.{name}" for name in ("deletion", "day", "deleted_records", "deleted_files")
)
"""What the `commitInfo` of a deletion's commit says: its name, of which day records went, how many, out of how many
files. Whose they were no entry says."""

LOG = "_delta_log"

BACKUP = "_backup"
"""Tools that read the table know that a name with such a beginning is none of its folders."""

LAYOUT_KEY = "whimbrel.layout"
"""The table's property with its layout (schema.py). A table without it is of layout 1."""

FEWEST_COMMITS, CHECKPOINT_COMMITS = 20, 100
"""After so many commits a checkpoint lets readers begin there, and entries older than the log's retention go away: the
more, the larger the checkpoint before is."""

COMMIT_BYTES = 4_096
"""Of the checkpoint before, for each commit: an entry takes about 1,000, so checkpoints take four times their room at
most, where the log would need none. To read an entry takes 0.1 to 0.3 ms, and who opens the table reads all of them."""

LOG_KEPT_S = 86_400
"""The log's retention, as the table's properties have it."""

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
    """What one commit of a deletion took out of the table: records of one day, and how many files held them."""

    day: str
    records: int
    files: int


class Day(NamedTuple):
    """What the table holds of one day."""

    day: date
    files: int
    records: int
    size_bytes: int


def commit_number(previous: str, bits: int | None = None) -> str:
    """The next commit number: its count is one higher, its 32 random bits, if not given, make it unique."""
    return str(((int(previous) >> 32) + 1 << 32) + (secrets.randbits(32) if bits is None else bits))


def app_id(shard: int) -> str:
    """The name under which the table keeps a shard's last commit number."""
    return f"whimbrel-{shard}"


def import_kind(bits: int) -> str:
    """How the names of an import's files begin whose commit number has these random bits."""
    return f"{IMPORTED}-{bits:08x}"


def kinds_of(commit: str) -> tuple[str, str]:
    """How the names of the files begin that a commit may have: as a save's, or as an import's."""
    return commit, import_kind(int(commit) % 2**32)


UNDONE_ROWS = 2**61
"""Rows of the progress of an import that is taken back: more than any source has, so that none goes on."""


class Progress(NamedTuple):
    """How far an import is in one shard: the source's rows that are done, good or bad, and whether these are all.

    Of one that is taken back: `UNDONE_ROWS`, and whether all of its records are gone.
    """

    rows: int = 0
    is_whole: bool = False

    @property
    def is_undone(self) -> bool:
        """Whether an undo of the import has begun."""
        return self.rows >= UNDONE_ROWS

    @property
    def version(self) -> int:
        """As the table keeps it: it rises, also when the last row proves to be the last."""
        return 2 * self.rows + self.is_whole


class Imported(NamedTuple):
    """What a commit brings of an import: its name, how far it is then, the ids of the records, and whether the file
    said of some that they came by another transport than `import`."""

    name: str
    progress: Progress
    ids: range
    has_other_transports: bool = False


def _import_id(name: str, shard: int) -> str:
    """The name under which the table keeps how far an import is in a shard."""
    return f"{IMPORTED}-{name}-{shard}"


def _otherwise_id(shard: int) -> str:
    """The name under which the table keeps of how many ranges of a shard's ids `imported_otherwise` knows."""
    return f"{IMPORTED}-otherwise-{shard}"


class Archive:
    """The table in the folder `root`. Handles that it returns belong to one thread at a time; it takes none of them
    to a later version.

    `reached` hears the name of a step before it is taken, where one is not on disk yet. `held` tells the version up
    to which others need the log no more (log_retention.py). `opened` spares a thread from opening what it has opened.
    """

    def __init__(
        self, root: Path, reached: Step = no_step_reporter, held: Held = nothing_held, opened: TableCache | None = None
    ) -> None:
        self.root = root
        self._opened = opened
        self.data_files = DataFiles(root, reached)
        self._reached = reached
        self._held = held

    def open(self) -> DeltaTable:
        """`open_existing`, making the table if there is none: for those who begin one, no reader may."""
        return self.open_existing() or self._create()

    def open_existing(self) -> DeltaTable | None:
        """A handle of the newest version, None if there is no table; a fresh one, but where `opened` knows one.

        Raises `LayoutError` if a newer release wrote it.
        """
        if self._opened is not None and (known := self._opened.newest(self._log)) is not None:
            return known
        try:
            table = DeltaTable(str(self.root))
        except TableNotFoundError:
            return None
        if (layout := layout_of_table(table)) > LAYOUT:
            raise LayoutError(f"the archive {self.root}", layout, LAYOUT)
        if self._opened is not None:
            self._opened.note(table, self._log)
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
        """Bring a table of an older release to this one's layout: it gets the columns that it lacks, which are null in
        the files that are there; no file is touched. On disk when this returns. Returns the columns.
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
            except CommitFailedError:  # another program does it, too: look again
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
        """Add `files` and the shard's commit number to the table in one commit, on disk when this returns.

        With `imported`, how far the import of that name is now, and its records' ids, too.

        `table` is the handle that was asked for the shard's commit number: a commit that another worker
        made since then is noticed only by that handle (guard 3). Raises `IntentChanged` if there was one.
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
            raise IntentChanged(f"cannot commit: another worker did meanwhile: {error}") from error

    def note_progress(self, table: DeltaTable, name: str, shard: int, progress: Progress) -> None:
        """Note how far an import is where that brings no records; as `commit`."""
        try:
            noted = self._noting_ids(table, name, shard)
            self._commit(table, [], Transaction(_import_id(name, shard), progress.version), *noted)
        except CommitFailedError as error:
            raise IntentChanged(f"cannot note an import's progress: another did meanwhile: {error}") from error

    def _noting_ids(self, table: DeltaTable, name: str, shard: int, ids: range | None = None) -> list[Transaction]:
        """What notes the ids of a batch, or that there is none yet; nothing of an import that began without notes."""
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
        """Of how many batches ids are noted; None if none ever were."""
        return table.transaction_version(f"{_import_id(name, shard)}-batches")

    def imported_ids(self, table: DeltaTable, name: str, shard: int, shards: int) -> list[range] | None:
        """The ids of an import's records in a shard; None if a release imported them that did not note ids."""
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
        """What notes these ids for `imported_otherwise`: the last noted range goes on where they begin at its end."""
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
        """The ids of a shard's imported records of which files said that they came by another transport than `import`;
        not of imports by releases that did not note them.

        A range takes about a millisecond to read. Those that are `known` of an older version are not read again, but
        for the last, which may have grown.
        """
        if table is None:
            return []
        key, found = _otherwise_id(shard), list(known[:-1])
        for n in range(len(found), table.transaction_version(key) or 0):
            first, after = (table.transaction_version(f"{key}-{n}-{end}") or 0 for end in ("first", "after"))
            found.append(range(first, after, shards))
        return found

    def replace(self, table: DeltaTable, old: Sequence[LiveFile], new: Sequence[DataFile], now_ms: int) -> None:
        """Put `new` in the place of `old`, whose rows they hold, in one commit, on disk when this returns.

        `table` is the handle that `old` was read from; all are of one day. Raises `PlanOutdated` if another
        compaction, retention or sweep touched that day meanwhile.
        """
        self._commit_days(
            table, [old[0].day], [*self._added(new, now_ms, is_new=False), *self._removed(old, now_ms, is_lost=False)]
        )

    def give_up(self, table: DeltaTable, files: Sequence[LiveFile], now_ms: int) -> None:
        """Take files of some days, and their rows, out of the table; as `replace`, of all of these days."""
        self._commit_days(table, sorted({file.day for file in files}), self._removed(files, now_ms, is_lost=True))

    def erase(
        self, table: DeltaTable, old: Sequence[LiveFile], new: Sequence[DataFile], now_ms: int, name: str, records: int
    ) -> None:
        """Put `new` in the place of `old`, which have `records` more; as `replace`. `name` is a deletion's."""
        told = {DELETION: name, DELETED_DAY: old[0].day.isoformat()}
        told |= {DELETED_RECORDS: str(records), DELETED_FILES: str(len(old))}
        actions = [*self._added(new, now_ms, is_new=True), *self._removed(old, now_ms, is_lost=True)]
        self._commit_days(table, [old[0].day], actions, told)

    def erased(self, name: str, after: int, upto: int) -> list[Erased]:
        """What a deletion's commits took out of the table in its versions behind `after`, up to `upto`."""
        found = []
        for version in range(after + 1, upto + 1):
            entry = commit_log.entry(self._log, version) or b""
            if name.encode() in entry:
                told = json.loads(entry.splitlines()[0])["commitInfo"]
                found.append(Erased(told[DELETED_DAY], int(told[DELETED_RECORDS]), int(told[DELETED_FILES])))
        return found

    def fence(self, table: DeltaTable, day: date) -> None:
        """Have every compaction of a day that was planned before this refused when it commits."""
        self._commit_days(table, [day], [])

    def _commit_days(
        self,
        table: DeltaTable,
        days: Sequence[date],
        actions: Sequence[AddAction | RemoveAction],
        told: Mapping[str, str] | None = None,
    ) -> None:
        names = [f"{COMPACTED}-{day.isoformat()}" for day in days]
        transactions = [Transaction(name, (table.transaction_version(name) or 0) + 1) for name in names]
        try:
            self._commit(table, actions, *transactions, told=told)
        except CommitFailedError as error:
            which = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
            raise PlanOutdated(f"cannot change the files of {which}: another did meanwhile: {error}") from error

    def _commit(
        self,
        table: DeltaTable,
        actions: Sequence[AddAction | RemoveAction],
        *transactions: Transaction,
        told: Mapping[str, str] | None = None,
    ) -> None:
        table.create_write_transaction(
            list(actions),
            mode="append",
            schema=table.schema(),
            partition_by=["date"],
            commit_properties=CommitProperties(
                app_transactions=list(transactions),
                max_commit_retries=20,
                custom_metadata={commit_log.ACTIONS: str(len(actions) + len(transactions)), **(told or {})},
            ),
            post_commithook_properties=_NO_HOOKS,
        )
        self._reached("make last")
        self.make_last()
        self._shorten_log(table)

    def forget_past(self, now_s: float) -> bool:
        """Shorten the log if its oldest entry is twice as old as it may be, however few came since.

        What an entry says of a file, like its first and its last device, is gone then, too. Returns whether it was.
        """
        table = self.open_existing()
        oldest = min(commit_log.entries(self._log), default=None)
        age_s = None if oldest is None else commit_log.entry_age_s(self._log, oldest, now_s)
        if table is None or age_s is None or age_s < 2 * LOG_KEPT_S or holds_entries(self._log, self._held()):
            return False
        self._checkpoint()
        return True

    def _shorten_log(self, table: DeltaTable) -> None:
        """Make a checkpoint if it is time, and delete what it stands for, but only once it is on disk."""
        before = commit_log.newest_checkpoint(self._log)
        enough = max(FEWEST_COMMITS, commit_log.checkpoint_bytes(self._log, before) // COMMIT_BYTES)
        if table.version() + 1 - max(before, 0) >= min(enough, CHECKPOINT_COMMITS):
            self._checkpoint()

    def _checkpoint(self) -> None:
        """By a handle of its own: one that was given out stays at its version, or guard 3 would not hold."""
        try:
            table = DeltaTable(str(self.root))
            table.create_checkpoint()
            self.make_last()
            if not holds_entries(self._log, self._held()):
                table.cleanup_metadata()
        except READ_ERRORS as error:
            log.warning("the archive's log stays long: cannot make a checkpoint: %s", in_one_line(error))

    def _added(self, files: Sequence[DataFile], now_ms: int, is_new: bool) -> list[AddAction | RemoveAction]:
        """Raises `FileNotFoundError` if a sweep took a file for that of a failed attempt."""
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
        """Make the log survive a power cut: until then a commit that everybody sees may still vanish."""
        commit_log.make_last(self._log)

    def mend(self) -> None:
        """Take away what a power cut left of commits that nobody had relied on. The table may be in use."""
        try:
            torn = commit_log.mend(self._log)
        except FileNotFoundError:
            return  # there is no table yet
        except OSError as error:
            log.error("cannot look at the archive's log: %s", error)  # who opens the table hears it too
            return
        for name in torn:
            log.error("a power cut tore the archive's log; it is mended, and what was torn is in %s", name)

    @property
    def _log(self) -> Path:
        return commit_log.folder(self.root)

    def unlisted(self, table: DeltaTable) -> set[str]:
        """Absolute paths of the data files that lie in the archive's folder and are not in the table."""
        return {str(path) for path in self.root.glob("date=*/*.parquet")} - set(self.files(table))

    def linked(self) -> set[str]:
        """Absolute paths of the links that a backup under way reads: what they name stays on disk until it ends."""
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
        """All that the table of this version consists of, as paths from its root: data files, and its log.

        Raises `FileNotFoundError` if a part of the log was cleaned away meanwhile.
        """
        files = [str(Path(file.path).relative_to(self.root)) for file in self.live(table)]
        return files, commit_log.paths_of(self._log, table.version())

    def files(self, table: DeltaTable) -> list[str]:
        """Absolute paths of the table's files."""
        return [file.path for file in self.live(table)]

    @staticmethod
    def days(table: DeltaTable) -> list[Day]:
        """What the table holds of each day, the oldest first."""
        actions = pa.table(table.get_add_actions(flatten=True)).group_by("partition.date")
        found = actions.aggregate([("path", "count"), ("num_records", "sum"), ("size_bytes", "sum")])
        columns = ("partition.date", "path_count", "num_records_sum", "size_bytes_sum")
        rows = zip(*(found.column(name).to_pylist() for name in columns), strict=True)
        return sorted(Day(day, files, records or 0, size) for day, files, records, size in rows)

    @staticmethod
    def changed_us(table: DeltaTable) -> int | None:
        """When the table's last commit was made, µs since epoch; None if its log entry is gone."""
        return next((entry["timestamp"] * 1_000 for entry in table.history(1)), None)

    @staticmethod
    def begun_us(table: DeltaTable) -> int | None:
        """When the table was begun, µs since epoch; None if it does not say."""
        begun_ms = table.metadata().created_time
        return None if begun_ms is None else begun_ms * 1_000

    def log_stamp(self, table: DeltaTable) -> tuple[int, int] | None:
        """What tells the log entry of the handle's version from one that took its place; None if it is gone."""
        return commit_log.stamp(self._log, table.version())

    def is_newest(self, table: DeltaTable) -> bool:
        """Whether no commit came after the handle's version."""
        return commit_log.is_newest(self._log, table.version())

    @staticmethod
    def committed(table: DeltaTable | None, shard: int) -> str:
        """The shard's last commit number, "0" if there is none, or no table."""
        return str(table.transaction_version(app_id(shard)) or 0) if table is not None else "0"

    @staticmethod
    def progress(table: DeltaTable | None, name: str, shard: int) -> Progress | None:
        """How far the import of that name is in a shard; None if it has not begun there."""
        version = table.transaction_version(_import_id(name, shard)) if table is not None else None
        return None if version is None else Progress(version // 2, version % 2 == 1)

    def imported(self, table: DeltaTable, commit: str) -> list[str]:
        """Absolute paths of the files that an import's commit brought and that are still there."""
        kind = import_kind(int(commit) % 2**32)
        return [path for path in self.files(table) if Path(path).name.startswith(f"{kind}-")]

    @staticmethod
    def greatest_id(table: DeltaTable) -> int:
        """The greatest `id` of any live record, 0 if there is none."""
        actions = pa.table(table.get_add_actions(flatten=True))
        if "max.id" not in actions.schema.names:
            return 0
        return int(pc.max(actions.column("max.id")).as_py() or 0)


def layout_of_table(table: DeltaTable, unwritten: int = 1) -> int:
    """A table's layout; of one that doesn't say it, `unwritten`."""
    return int(table.metadata().configuration.get(LAYOUT_KEY, unwritten))


def in_one_line(error: Exception) -> str:
    """What one of `READ_ERRORS` says, with the causes that deltalake names below it, and without its stack."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    causes = [line.partition(_CAUSE)[2] for line in lines[1:] if line.strip().startswith(_CAUSE)]
    return ": ".join(part.strip() for part in (*lines[:1], *causes)) or type(error).__name__


_CAUSE = "\N{DOWNWARDS ARROW WITH TIP RIGHTWARDS}"
