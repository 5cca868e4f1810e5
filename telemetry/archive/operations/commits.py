"""Commits to the archive's table: of saves, imports and compactions. Each is one entry of the log, synced on return.

A handle of the table must be the one from which the caller read the state that its commit replaces: only that handle
detects commits that other programs made since then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from telemetry.archive import commit_log
from telemetry.archive.data_files import COMPACTED, DataFile, LiveFile
from telemetry.archive.operations import import_progress, log_maintenance
from telemetry.archive.operations.import_progress import Imported, Progress
from telemetry.archive.table import Archive, app_id
from telemetry.model.errors import IntentChanged, PlanOutdated

NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""Without delta-rs's own checkpoints and cleanup: log_maintenance.py makes them."""

Actions = Sequence[AddAction | RemoveAction]


def commit(
    archive: Archive,
    table: DeltaTable,
    files: Sequence[DataFile],
    shard: int,
    number: str,
    now_ms: int,
    imported: Imported | None = None,
) -> None:
    """Add `files` and the shard's commit number to the table in one commit.

    With `imported` the commit also has the import's new progress and its records' ids.

    `table` must be the handle from which the shard's commit number was read (guard 3). Raises `IntentChanged` if
    another worker made a commit since then.
    """
    transactions = [Transaction(app_id(shard), int(number))]
    if imported is not None:
        transactions += import_progress.batch_transactions(table, shard, imported)
    try:
        _commit(archive, table, added(archive, files, now_ms, is_new=True), *transactions)
    except CommitFailedError as error:
        raise IntentChanged(f"cannot commit: another worker committed first: {error}") from error


def note_progress(archive: Archive, table: DeltaTable, name: str, shard: int, progress: Progress) -> None:
    """Record an import's progress without records; otherwise like `commit`."""
    try:
        _commit(archive, table, [], *import_progress.progress_transactions(table, name, shard, progress))
    except CommitFailedError as error:
        raise IntentChanged(f"cannot record an import's progress: another worker did first: {error}") from error


def replace(archive: Archive, table: DeltaTable, old: Sequence[LiveFile], new: Sequence[DataFile], now_ms: int) -> None:
    """Replace `old` by `new`, which have the same rows, in one commit.

    `table` must be the handle from which `old` was read; all files have the same day. Raises `PlanOutdated` if another
    compaction, retention or cleanup changed that day meanwhile.
    """
    actions = [*added(archive, new, now_ms, is_new=False), *removed(archive, old, now_ms, is_lost=False)]
    commit_days(archive, table, [old[0].day], actions)


def give_up(archive: Archive, table: DeltaTable, files: Sequence[LiveFile], now_ms: int) -> None:
    """Remove files of some days, and their rows, from the table; otherwise like `replace`."""
    commit_days(archive, table, sorted({file.day for file in files}), removed(archive, files, now_ms, is_lost=True))


def fence(archive: Archive, table: DeltaTable, day: date) -> None:
    """Make the commits of all compactions of a day fail that were planned before."""
    commit_days(archive, table, [day], [])


def commit_days(
    archive: Archive,
    table: DeltaTable,
    days: Sequence[date],
    actions: Actions,
    info: Mapping[str, str] | None = None,
) -> None:
    """Change files of some days. Raises `PlanOutdated` if another process changed one of these days meanwhile."""
    names = [f"{COMPACTED}-{day.isoformat()}" for day in days]
    transactions = [Transaction(name, (table.transaction_version(name) or 0) + 1) for name in names]
    try:
        _commit(archive, table, actions, *transactions, info=info)
    except CommitFailedError as error:
        which = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        raise PlanOutdated(f"cannot change the files of {which}: another process changed them: {error}") from error


def added(archive: Archive, files: Sequence[DataFile], now_ms: int, is_new: bool) -> list[AddAction | RemoveAction]:
    """Actions that add files. `is_new` is false if their rows were in the table before.

    Raises `FileNotFoundError` if cleanup deleted a file as the leftover of a failed attempt.
    """
    for file in files:
        (archive.root / file.path).stat()
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


def removed(archive: Archive, files: Sequence[LiveFile], now_ms: int, is_lost: bool) -> list[AddAction | RemoveAction]:
    """Actions that remove files. `is_lost` is true if their rows leave the table."""
    return [
        RemoveAction(
            str(Path(file.path).relative_to(archive.root)),
            is_lost,
            now_ms,
            file.size_bytes,
            {"date": file.day.isoformat()},
        )
        for file in files
    ]


def _commit(
    archive: Archive,
    table: DeltaTable,
    actions: Actions,
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
        post_commithook_properties=NO_HOOKS,
    )
    archive.reached("make last")
    archive.make_last()
    log_maintenance.shorten(archive, table)
