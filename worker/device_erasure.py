"""Deletion of a device's records from the archive and the quarantine.

`forget` (lua/deletion.lua) has removed the device from Redis, and defined the records to delete: those with ids below a
limit (telemetry/hot_store/operations/deletions.py). The remaining steps can be repeated at any time, also concurrently:

    settle      wait until the save or import that was running then has ended, so that no such record is added any more:
                a later save reads its ranges after that (saver.py, guard 5), and ids assigned to an import were revoked
    look        find files that may have such records: files whose bounds in the log allow it, and that were not
                searched yet. Files never change
    erase       the files of each day: those with such records are rewritten without them, and replaced in one
                commit, which records the number of deleted records. It fails if another process changed that day's
                files, or deleted anything, since the table was read: look again
    count       add the numbers from the commits to the status, each once, by the table's version
    cleanse     remove the device's entries from the quarantine
    complete    if no file is left, and the deletion was not requested again: remove the name from Redis

It works for a few seconds at a time, because saves wait for it, and remembers the searched files in between.
tests/worker/deletion_model.py explores it with concurrent saves, imports and merges, and shows which fault
each step prevents.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import groupby
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from telemetry.archive.data_files import DataFile, DataFiles, LiveFile
from telemetry.archive.operations import erasures
from telemetry.archive.schema import sql_text, with_memory
from telemetry.archive.table import READ_ERRORS, Archive, in_one_line
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.deletions import Mark
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import IntentChanged, NotTogether, PlanOutdated
from telemetry.observability import metrics
from telemetry.startup.store_setup import apart
from telemetry.system.failpoints import Step, no_step_reporter
from worker.saving.saver import Saver

log = logging.getLogger(__name__)

BUSY_S = 4.0
"""Maximum duration of a job, s: saves wait for it."""

COMMIT_FILES, COMMIT_BYTES = 32, 2**27
"""Maximum number of files in a commit, and of bytes of all but the first: the work lost if it is interrupted."""

MOST_MEMORY_BYTES = 2**31
"""Memory limit for rewriting a file whose texts are too long for the setting, bytes."""

FAILURES = (*READ_ERRORS, duckdb.Error, NotTogether)


class Eraser:
    """Carries out deletions. `reached` is called with the name of each step before it; tests kill it there."""

    def __init__(
        self,
        archive: Archive,
        connection: Callable[[], duckdb.DuckDBPyConnection],
        saver: Saver,
        now_ms: Callable[[], int],
        reached: Step = no_step_reporter,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._archive, self._connection, self._saver = archive, connection, saver
        self._now_ms, self._reached, self._monotonic = now_ms, reached, monotonic
        self._clean: dict[Mark, set[str]] = {}  # searched files without such records

    def erase(self, shard: Shard) -> int:
        """Continue a shard's deletions until they are done or `BUSY_S` have passed. Returns the number completed."""
        marks, until_s = deletions.pending(shard), self._monotonic() + BUSY_S
        for mark in [one for one in self._clean if deletions.shard_named(one.name) == shard.shard and one not in marks]:
            del self._clean[mark]
        done = 0
        for mark in marks:
            try:
                done += self._go_on(shard, mark, until_s)
            except (PlanOutdated, IntentChanged) as error:
                log.info("deletion %s: %s; looking again", mark.name, error)
            except FAILURES as error:
                why = str(error) if isinstance(error, NotTogether) else in_one_line(error)
                log.error("deletion %s: cannot continue, trying again: %s", mark.name, why)
                self._note(shard, mark, state=deletions.FAILED, trouble=why)
            if self._monotonic() >= until_s:
                break
        return done

    def _go_on(self, shard: Shard, mark: Mark, until_s: float) -> bool:
        """Continue one deletion; True if it is completed."""
        if (why := apart(shard, self._archive)) is not None:
            raise NotTogether(why)
        self._begin(shard, mark)
        if not self._settle(shard):
            return False
        self._reached("cleanse")
        removed = deletions.cleanse(shard, mark)
        if removed:
            status = deletions.read(shard, mark.name)
            self._note(shard, mark, quarantined=removed + (status.quarantined if status else 0))
        self._reached("look")
        table = self._archive.open_existing()
        while table is not None and (days := self._days(table, mark)):
            if not self._look_into(shard, mark, table, days, until_s):
                return False
            self._reached("look")
            table.update_incremental()
        self._count(shard, mark, table)
        return self._complete(shard, mark, table)

    def _look_into(
        self, shard: Shard, mark: Mark, table: DeltaTable, days: Iterable[list[LiveFile]], until_s: float
    ) -> bool:
        """Search files until some were replaced, which makes a new table version. False if time is up."""
        for files in days:
            is_changed = self._erase_some(mark, table, files)
            if self._monotonic() >= until_s:
                self._count(shard, mark, self._archive.open_existing())
                return False
            if is_changed:
                break
        return True

    def _begin(self, shard: Shard, mark: Mark) -> None:
        status = deletions.read(shard, mark.name)
        if status is not None and (status.state != deletions.RUNNING or status.version is None):
            table = self._archive.open_existing()
            version = table.version() if table is not None else -1
            version = version if status.version is None else status.version
            deletions.note(
                shard, mark.name, status.version, {"state": deletions.RUNNING, "version": version, "trouble": ""}
            )

    def _settle(self, shard: Shard) -> bool:
        """True if the current intent, which may be older than the deletion, has ended; a later one is harmless."""
        self._reached("settle")
        intent = shard.state().intent
        if intent is None:
            return True
        self._saver.save(shard)  # finishes an interrupted save
        return shard.state().intent != intent

    def _days(self, table: DeltaTable, mark: Mark) -> list[list[LiveFile]]:
        """The files that may have such records and were not searched, in portions by day."""
        clean = self._clean.setdefault(mark, set())
        files = [file for file in self._archive.live(table) if may_hold(file, mark) and file.path not in clean]
        files.sort(key=lambda file: (file.day, file.path))
        return [portion for _, day in groupby(files, _day_of) for portion in portions(list(day))]

    def _erase_some(self, mark: Mark, table: DeltaTable, files: Sequence[LiveFile]) -> bool:
        """Remove the records from files of a day. Returns True if there were any."""
        connection, clean = self._connection(), self._clean[mark]
        condition = condition_of(mark)
        held = {file: self._archive.data_files.count(connection, file, condition) for file in files}
        clean.update(file.path for file, records in held.items() if not records)
        old = [file for file, records in held.items() if records]
        if not old:
            return False
        self._reached("write")
        new = rewritten(self._archive.data_files, connection, condition, {file: held[file] for file in old})
        self._reached("commit")
        erasures.erase(self._archive, table, old, new, self._now_ms(), mark.name, sum(held.values()))
        clean.update(str(self._archive.root / file.path) for file in new)
        log.info("deletion %s: deleted %d records of %s", mark.name, sum(held.values()), old[0].day)
        return True

    def _count(self, shard: Shard, mark: Mark, table: DeltaTable | None) -> None:
        """Add the numbers of the commits since the last call, each once."""
        self._reached("count")
        status = deletions.read(shard, mark.name)
        if status is None or status.version is None or table is None:
            return
        erased = erasures.erased(self._archive, mark.name, status.version, table.version())
        deletions.note(
            shard,
            mark.name,
            status.version,
            {
                "version": table.version(),
                "archived_records": status.archived_records + sum(removal.records for removal in erased),
                "files": status.files + sum(removal.files for removal in erased),
                "days": " ".join(sorted({*status.days, *(removal.day for removal in erased)})),
                "to_look_at": sum(map(len, self._days(table, mark))),
            },
        )

    def _complete(self, shard: Shard, mark: Mark, table: DeltaTable | None) -> bool:
        left = set[str]()
        if table is not None:
            self._archive.make_last()
            left = self._archive.unlisted(table) | self._archive.linked()
        self._reached("complete")
        if not deletions.complete(
            shard, mark, sorted(str(Path(path).relative_to(self._archive.root)) for path in left)
        ):
            return False
        self._clean.pop(mark, None)
        metrics.DELETIONS.one.add()
        log.warning("deletion %s is done", mark.name)
        return True

    @staticmethod
    def _note(shard: Shard, mark: Mark, **fields: str | int) -> None:
        status = deletions.read(shard, mark.name)
        if status is not None:
            deletions.note(shard, mark.name, status.version, fields)


def condition_of(mark: Mark) -> str:
    """SQL condition of the records to delete."""
    return f"device_id = {sql_text(mark.device_id)} AND id < {mark.before_id}"


def rewritten(
    data_files: DataFiles, connection: duckdb.DuckDBPyConnection, condition: str, held: Mapping[LiveFile, int]
) -> list[DataFile]:
    """New files without the records that match a condition; `held` has their number for each old file.

    If the disk is full, all new files are removed, so that the next attempt has space.
    """
    made: list[DataFile] = []
    try:
        for file, records in held.items():
            write = partial(data_files.without, connection, file, condition, records)
            if (new_file := with_memory(connection, write, MOST_MEMORY_BYTES)) is not None:
                made.append(new_file)
    except (OSError, duckdb.Error):
        for one in made:
            (data_files.root / one.path).unlink(missing_ok=True)
        raise
    return made


def may_hold(file: LiveFile, mark: Mark) -> bool:
    """True if the log allows that a file has records to delete."""
    if file.least_id is not None and file.least_id >= mark.before_id:
        return False
    if file.first_device is None or file.last_device is None:
        return True
    return file.first_device <= mark.device_id <= file.last_device


def portions(files: Sequence[LiveFile]) -> Iterator[list[LiveFile]]:
    """A day's files in portions that are committed together."""
    portion: list[LiveFile] = []
    size_bytes = 0
    for file in files:
        if portion and (len(portion) == COMMIT_FILES or size_bytes + file.size_bytes > COMMIT_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(file)
        size_bytes += file.size_bytes
    if portion:
        yield portion


def _day_of(file: LiveFile) -> date:
    return file.day
