"""Commits of deletions: files replaced by files without the deleted records, and the counts that these commits hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from deltalake import DeltaTable

from telemetry.archive import commit_log
from telemetry.archive.data_files import DataFile, LiveFile
from telemetry.archive.operations.commits import added, commit_days, removed
from telemetry.archive.table import Archive

DELETION, DELETED_DAY, DELETED_RECORDS, DELETED_FILES = (
    f"whimbrel.{name}" for name in ("deletion", "day", "deleted_records", "deleted_files")
)
"""Fields in `commitInfo` of a deletion's commit: its name, the day of the records, their number, the number of files.
The device is not recorded."""


class Erased(NamedTuple):
    """Records that one commit of a deletion removed: their day, number, and number of files."""

    day: str
    records: int
    files: int


def erase(
    archive: Archive,
    table: DeltaTable,
    old: Sequence[LiveFile],
    new: Sequence[DataFile],
    now_ms: int,
    name: str,
    records: int,
) -> None:
    """Replace `old` by `new`, which have `records` fewer; otherwise like `commits.replace`. `name` is a deletion's."""
    info = {DELETION: name, DELETED_DAY: old[0].day.isoformat()}
    info |= {DELETED_RECORDS: str(records), DELETED_FILES: str(len(old))}
    actions = [*added(archive, new, now_ms, is_new=True), *removed(archive, old, now_ms, is_lost=True)]
    commit_days(archive, table, [old[0].day], actions, info)


def erased(archive: Archive, name: str, after: int, upto: int) -> list[Erased]:
    """Records removed by a deletion's commits in the versions after `after`, up to `upto`."""
    removals = []
    for version in range(after + 1, upto + 1):
        entry = commit_log.entry(archive.log_folder, version) or b""
        if name.encode() in entry:
            info = json.loads(entry.splitlines()[0])["commitInfo"]
            removals.append(Erased(info[DELETED_DAY], int(info[DELETED_RECORDS]), int(info[DELETED_FILES])))
    return removals
