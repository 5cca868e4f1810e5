"""The archive: a Delta table of daily Parquet partitions. This file is all that knows its layout.

    archive/date=YYYY-MM-DD/<commit number>-<random>.parquet    sorted by (device_id, timestamp, id), made by a save
    archive/date=YYYY-MM-DD/import-<bits>-<random>.parquet      the same, made by an import; the bits are the
                                                                random ones of its commit number
    archive/date=YYYY-MM-DD/compact-<random>.parquet            the same, several of these merged, or one without what
                                                                was deleted
    archive/_delta_log/<version>.json                           one commit each; checkpoints now and then
    archive/_backup/<random>/                                   links to files that a backup under way has yet to copy

`date` is the day of `timestamp` in UTC. Arrow writes the files (parquet.py), DuckDB reads them; `deltalake` keeps the
log and no more. A save's files and its transaction ("whimbrel-<shard>", commit number) are one commit; an import's
have one more transaction ("import-<name>-<shard>", how far it is), so that each of its rows comes in once. So are
the files that a compaction adds and removes, and its transaction ("compact-<date>", a count): whoever planned
with an older handle is refused; a deletion's commits are such, with its name (`DELETION`). No Parquet file is ever
overwritten, and nobody globs the folder: files of failed attempts and of the time before a compaction lie beside the
live ones, until the sweep.

A commit number is a count * 2^32 + 32 random bits: it rises, and no two saves ever share one.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction

from telemetry import delta_log
from telemetry.columns import (
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
from telemetry.days import day_of, iso
from telemetry.durable import fsync, make_folder
from telemetry.errors import ArchiveError, IntentChanged, LayoutError, PlanOutdated
from telemetry.holding import Held, holds_entries, nothing_held
from telemetry.merging import SCHEMA, NotSorted, ahead, cut, merged
from telemetry.parquet import FileWriter
from telemetry.steps import Step, untold

log = logging.getLogger(__name__)

ROW_GROUPS = 32
"""How many a file has: more take longer to look through, fewer longer to read for one device's day."""

LEAST_GROUP_ROWS, ROW_GROUP_ROWS = 8_192, 122_880
VECTOR_ROWS = 2_048
"""A row group has whole vectors, in which DuckDB reads and writes."""

MERGED_LEVEL = 6
"""zstd's, where DuckDB writes: an eighth more of the time than the usual third, and 3 % less room."""

MOST_MEMORY_BYTES = 2**31
"""What sorting may take if the setting is too little for it: a file of 128 MB of texts is some 1 GB to sort."""

READ_ERRORS = (DeltaError, OSError)
"""What opening and reading a table raises if its log is damaged or can't be read."""

IMPORTED = "import"
"""How the names of an import's files and transactions begin."""

COMPACTED = "compact"
"""How the names of a compaction's files and transactions begin."""

DELETION, DELETED_DAY, DELETED_RECORDS, DELETED_FILES = (
    f"whimbrel.{name}" for name in ("deletion", "day", "deleted_records", "deleted_files")
)
"""What the `commitInfo` of a deletion's commit says: its name, of which day records went, how many, out of how many
files. Whose they were no entry says."""

LOG = "_delta_log"

BACKUP = "_backup"
"""Tools that read the table know that a name with such a beginning is none of its folders."""

LAYOUT_KEY = "whimbrel.layout"
"""The table's property with its layout (columns.py). A table without it is of layout 1."""

CHECKPOINT_COMMITS = 100
"""After so many commits a checkpoint lets readers begin there, and entries older than the log's retention go away."""

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


class DataFile(NamedTuple):
    """A Parquet file of the archive: its path from the table's root, its day, and what the log says of it."""

    path: str
    day: date
    size_bytes: int
    stats: str


class LiveFile(NamedTuple):
    """A file that the table names, and what the log says of its records; None where it does not say."""

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
    """That of all its records, if they share one."""

    least_id: int | None = None

    def may_hold(self, start_us: int, end_us: int, devices: Sequence[str]) -> bool:
        """Whether records of the half-open range, and of the devices if any are named, may be in it."""
        if self.first_us is not None and self.last_us is not None:
            if not (self.first_us < end_us and start_us <= self.last_us):
                return False
        elif not day_of(start_us) <= self.day <= day_of(end_us - 1):
            return False
        if not devices or self.first_device is None or self.last_device is None:
            return True
        return any(self.first_device <= device <= self.last_device for device in devices)


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


class Progress(NamedTuple):
    """How far an import is in one shard: the source's rows that are done, good or bad, and whether these are all."""

    rows: int = 0
    is_whole: bool = False

    @property
    def version(self) -> int:
        """As the table keeps it: it rises, also when the last row proves to be the last."""
        return 2 * self.rows + self.is_whole


def _import_id(name: str, shard: int) -> str:
    """The name under which the table keeps how far an import is in a shard."""
    return f"{IMPORTED}-{name}-{shard}"


class Archive:
    """The table in the folder `root`. Handles that it returns belong to one thread at a time.

    `reached` hears the name of a step before it is taken, where one is not on disk yet. `held` tells the version up
    to which others need the log no more (holding.py).
    """

    def __init__(self, root: Path, reached: Step = untold, held: Held = nothing_held) -> None:
        self.root = root
        self._reached = reached
        self._held = held

    def open(self) -> DeltaTable:
        """A fresh handle, creating the table if there is none: for those who begin one, no reader may."""
        return self.open_existing() or self._create()

    def open_existing(self) -> DeltaTable | None:
        """A fresh handle, or None if there is no table. Raises `LayoutError` if a newer release wrote it."""
        try:
            table = DeltaTable(str(self.root))
        except TableNotFoundError:
            return None
        if (layout := layout_of_table(table)) > LAYOUT:
            raise LayoutError(f"the archive {self.root}", layout, LAYOUT)
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

    # Writing -----------------------------------------------------------------------------------------

    def write(self, records: pa.Table, commit: str) -> list[DataFile]:
        """Write `records` (of `COLUMNS`) sorted into new files, one a day, on disk when this returns.

        The files are not in the table until `commit` names them.
        """
        files: list[DataFile] = []
        try:
            for day, part in days_of(records):
                files.append(self._write_day(day, part, commit))
            self._sync([file.path for file in files])
        except OSError:
            for file in files:  # on a disk that fills, each attempt's would take the room of the next
                (self.root / file.path).unlink(missing_ok=True)
            raise
        return files

    def _write_day(self, day: date, records: pa.Table, commit: str) -> DataFile:
        path = self._new_path(day, commit)
        with FileWriter(self.root / path, _group_rows(records.num_rows), is_merged=False) as writer:
            writer.add(records if is_sorted(records) else in_order(records))
        return self._written(path, day, writer)

    def _written(self, path: str, day: date, writer: FileWriter) -> DataFile:
        return DataFile(path, day, (self.root / path).stat().st_size, _stats(writer.rows, writer.bounds))

    def _new_path(self, day: date, kind: str) -> str:
        """The path of a new file, whose folder is there."""
        folder = f"date={day.isoformat()}"
        (self.root / folder).mkdir(exist_ok=True)
        return f"{folder}/{file_name(kind, secrets.token_hex(8))}"

    def _copy(self, connection: duckdb.DuckDBPyConnection, select: str, rows: int, day: date, kind: str) -> str:
        """Write the `rows` that `select` finds, in its order, into a new file of a day; not on disk for sure yet."""
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
        """Write the rows of a day's files into `pieces` new files, sorted over all of them, on disk when this returns.

        The files are not in the table until `replace` names them. A DuckDB is asked for only if a file is not in the
        order of files, as all of ours are. Raises `ArchiveError` if a row is missing.
        """
        day, rows = files[0].day, sum(file.rows or 0 for file in files)
        paths = [file.path for file in files]
        cuts = [rows * n // pieces for n in range(pieces + 1)]
        try:
            made = self._write_slices(cut(ahead(merged(paths)), cuts[1:-1]), rows // pieces, day)
        except NotSorted:
            log.warning("files of %s are not sorted: all their rows are", day)
            sorting = connection()
            made = with_memory(sorting, lambda: self._sort(sorting, paths, cuts, day), MOST_MEMORY_BYTES)
        self._sync([file.path for file, _ in made])
        if (written := sum(count for _, count in made)) != rows:
            raise ArchiveError(f"cannot merge files of {day}: they have {rows} rows, and {written} were written")
        return [file for file, _ in made]

    def _write_slices(
        self, slices: Iterable[tuple[int, pa.Table]], piece_rows: int, day: date
    ) -> list[tuple[DataFile, int]]:
        """Write each piece's rows into a file of its own; with each file how many rows it has."""
        made: list[tuple[DataFile, int]] = []
        try:
            for _, piece in groupby(slices, lambda numbered: numbered[0]):
                path = self._new_path(day, COMPACTED)
                with FileWriter(self.root / path, _group_rows(piece_rows), is_merged=True, schema=SCHEMA) as writer:
                    for _, rows in piece:
                        writer.add(rows)
                made.append((self._written(path, day, writer), writer.rows))
        except (OSError, NotSorted):  # on a disk that fills, each attempt's would take the room of the next
            for file, _ in made:
                (self.root / file.path).unlink(missing_ok=True)
            raise
        return made

    def _sort(
        self, connection: duckdb.DuckDBPyConnection, paths: Sequence[str], cuts: Sequence[int], day: date
    ) -> list[tuple[DataFile, int]]:
        """The same, sorting all rows."""
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
        """A file as it is on disk, and how many rows it has."""
        file = self.root / path
        bounds = f"SELECT count(*), {_LEAST_AND_GREATEST} FROM read_parquet({sql_text(str(file))})"
        [row] = connection.execute(bounds).fetchall()
        return DataFile(
            path, day, file.stat().st_size, _stats(row[0], list(zip(row[1::2], row[2::2], strict=True)))
        ), row[0]

    def count(self, connection: duckdb.DuckDBPyConnection, file: LiveFile, device_id: str, before_id: int) -> int:
        """How many of a file's records are the device's and have an id below `before_id`."""
        source = f"read_parquet({sql_text(file.path)}, hive_partitioning = false)"
        [(found,)] = connection.execute(
            f"SELECT count(*) FROM {source} WHERE device_id = $1 AND id < $2", [device_id, before_id]
        ).fetchall()
        return int(found)

    def without(
        self, connection: duckdb.DuckDBPyConnection, file: LiveFile, device_id: str, before_id: int, gone: int
    ) -> DataFile | None:
        """Write a file anew without those `gone` records, on disk when this returns; None if none is left.

        Row by row, in the order that they have, however large it is. The new file is not in the table until `erase`
        names it. Raises `ArchiveError` if another number of rows is left.
        """
        [(rows,)] = connection.execute(
            "SELECT count(*) FROM read_parquet($1, hive_partitioning = false)", [file.path]
        ).fetchall()
        if rows == gone:
            return None
        order = "" if layout_of(file.path) == LAYOUT else f" {_ORDER}"
        kept = f"NOT (device_id = {sql_text(device_id)} AND id < {before_id})"
        select = f"SELECT * FROM {records_sql([file.path])} WHERE {kept}{order}"
        made = self._copy(connection, select, rows - gone, file.day, COMPACTED)
        self._sync([made])
        found, written = self._described(connection, made, file.day)
        if written != rows - gone:
            raise ArchiveError(f"cannot delete {gone} of {rows} records of {file.path}: {written} were left")
        return found

    def _sync(self, paths: Sequence[str]) -> None:
        """Have files, and that they are there, on disk."""
        self._reached("sync")
        for path in paths:
            fsync(self.root / path)
        for folder in {(self.root / path).parent for path in paths} | ({self.root} if paths else set()):
            fsync(folder)

    def commit(
        self,
        table: DeltaTable,
        files: Sequence[DataFile],
        shard: int,
        commit: str,
        now_ms: int,
        imported: tuple[str, Progress] | None = None,
    ) -> None:
        """Add `files` and the shard's commit number to the table in one commit, on disk when this returns.

        With `imported`, how far the import of that name is now, too.

        `table` is the handle that was asked for the shard's commit number: a commit that another worker
        made since then is noticed only by that handle (guard 3). Raises `IntentChanged` if there was one.
        """
        transactions = [Transaction(app_id(shard), int(commit))]
        if imported is not None:
            transactions.append(Transaction(_import_id(imported[0], shard), imported[1].version))
        try:
            self._commit(table, self._added(files, now_ms, is_new=True), *transactions)
        except CommitFailedError as error:
            raise IntentChanged(f"cannot commit: another worker did meanwhile: {error}") from error

    def note_progress(self, table: DeltaTable, name: str, shard: int, progress: Progress) -> None:
        """Note how far an import is where that brings no records; as `commit`."""
        try:
            self._commit(table, [], Transaction(_import_id(name, shard), progress.version))
        except CommitFailedError as error:
            raise IntentChanged(f"cannot note an import's progress: another did meanwhile: {error}") from error

    def replace(self, table: DeltaTable, old: Sequence[LiveFile], new: Sequence[DataFile], now_ms: int) -> None:
        """Put `new` in the place of `old`, whose rows they hold, in one commit, on disk when this returns.

        `table` is the handle that `old` was read from; all are of one day. Raises `PlanOutdated` if another
        compaction, retention or sweep touched that day meanwhile.
        """
        self._commit_day(
            table, old[0].day, [*self._added(new, now_ms, is_new=False), *self._removed(old, now_ms, is_lost=False)]
        )

    def give_up(self, table: DeltaTable, files: Sequence[LiveFile], now_ms: int) -> None:
        """Take a day's files, and their rows, out of the table; as `replace`."""
        self._commit_day(table, files[0].day, self._removed(files, now_ms, is_lost=True))

    def erase(
        self, table: DeltaTable, old: Sequence[LiveFile], new: Sequence[DataFile], now_ms: int, name: str, records: int
    ) -> None:
        """Put `new` in the place of `old`, which have `records` more; as `replace`. `name` is a deletion's."""
        told = {DELETION: name, DELETED_DAY: old[0].day.isoformat()}
        told |= {DELETED_RECORDS: str(records), DELETED_FILES: str(len(old))}
        actions = [*self._added(new, now_ms, is_new=True), *self._removed(old, now_ms, is_lost=True)]
        self._commit_day(table, old[0].day, actions, told)

    def erased(self, name: str, after: int, upto: int) -> list[Erased]:
        """What a deletion's commits took out of the table in its versions behind `after`, up to `upto`."""
        found = []
        for version in range(after + 1, upto + 1):
            entry = delta_log.entry(self._log, version) or b""
            if name.encode() in entry:
                told = json.loads(entry.splitlines()[0])["commitInfo"]
                found.append(Erased(told[DELETED_DAY], int(told[DELETED_RECORDS]), int(told[DELETED_FILES])))
        return found

    def fence(self, table: DeltaTable, day: date) -> None:
        """Have every compaction of a day that was planned before this refused when it commits."""
        self._commit_day(table, day, [])

    def _commit_day(
        self,
        table: DeltaTable,
        day: date,
        actions: Sequence[AddAction | RemoveAction],
        told: Mapping[str, str] | None = None,
    ) -> None:
        name = f"{COMPACTED}-{day.isoformat()}"
        try:
            self._commit(table, actions, Transaction(name, (table.transaction_version(name) or 0) + 1), told=told)
        except CommitFailedError as error:
            raise PlanOutdated(f"cannot change the files of {day}: another did meanwhile: {error}") from error

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
                custom_metadata={delta_log.ACTIONS: str(len(actions) + len(transactions)), **(told or {})},
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
        oldest = min(delta_log.entries(self._log), default=None)
        age_s = None if oldest is None else delta_log.entry_age_s(self._log, oldest, now_s)
        if table is None or age_s is None or age_s < 2 * LOG_KEPT_S or holds_entries(self._log, self._held()):
            return False
        self._checkpoint(table)
        return True

    def _shorten_log(self, table: DeltaTable) -> None:
        """Make a checkpoint if it is time, and delete what it stands for, but only once it is on disk."""
        if table.version() + 1 - max(delta_log.newest_checkpoint(self._log), 0) >= CHECKPOINT_COMMITS:
            self._checkpoint(table)

    def _checkpoint(self, table: DeltaTable) -> None:
        try:
            table.update_incremental()
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
        delta_log.make_last(self._log)

    def mend(self) -> None:
        """Take away what a power cut left of commits that nobody had relied on. The table may be in use."""
        try:
            torn = delta_log.mend(self._log)
        except FileNotFoundError:
            return  # there is no table yet
        except OSError as error:
            log.error("cannot look at the archive's log: %s", error)  # who opens the table hears it too
            return
        for name in torn:
            log.error("a power cut tore the archive's log; it is mended, and what was torn is in %s", name)

    @property
    def _log(self) -> Path:
        return delta_log.folder(self.root)

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
                str(self.root / unquote(path)), day, rows, size, made, d0, d1, t0, t1, r0 if r0 == r1 else None, i0
            )
            for path, day, rows, size, made, d0, d1, t0, t1, r0, r1, i0 in zip(
                *map(values, ("path", "partition.date", "num_records", "size_bytes", "modification_time")),
                *(
                    values(f"{end}.{name}")
                    for name in ("device_id", "timestamp", "transport")
                    for end in ("min", "max")
                ),
                values("min.id"),
                strict=True,
            )
        ]

    def paths(self, table: DeltaTable) -> tuple[list[str], list[str]]:
        """All that the table of this version consists of, as paths from its root: data files, and its log.

        Raises `FileNotFoundError` if a part of the log was cleaned away meanwhile.
        """
        files = [str(Path(file.path).relative_to(self.root)) for file in self.live(table)]
        return files, delta_log.paths_of(self._log, table.version())

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

    def log_stamp(self, table: DeltaTable) -> tuple[int, int] | None:
        """What tells the log entry of the handle's version from one that took its place; None if it is gone."""
        try:
            found = (self._log / f"{table.version():020}.json").stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def is_newest(self, table: DeltaTable) -> bool:
        """Whether no commit came after the handle's version."""
        return not (self._log / f"{table.version() + 1:020}.json").exists()

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


def _group_rows(rows: int) -> int:
    """How many rows a group of a file of so many has."""
    return min(max(-(-rows // (ROW_GROUPS * VECTOR_ROWS)) * VECTOR_ROWS, LEAST_GROUP_ROWS), ROW_GROUP_ROWS)


_ORDER = f"ORDER BY {', '.join(ORDER)}"
_BOUNDS_SQL = [f"epoch_us({name})" if COLUMNS.field(name).type == TIME else name for name in BOUNDED]
_LEAST_AND_GREATEST = ", ".join(f"min({bound}), max({bound})" for bound in _BOUNDS_SQL)


def _stats(rows: int, bounds: Sequence[tuple[Any, Any]]) -> str:
    """A file's statistics as Delta's log has them: exact, for a time cut to seconds would hide records."""
    least, greatest = {}, {}
    for name, (low, high) in zip(BOUNDED, bounds, strict=True):
        timed = COLUMNS.field(name).type == TIME
        least[name], greatest[name] = (iso(low), iso(high)) if timed else (low, high)
    nulls = dict.fromkeys(BOUNDED, 0)
    return json.dumps({"numRecords": rows, "minValues": least, "maxValues": greatest, "nullCount": nulls})
