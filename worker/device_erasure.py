"""Deleting a device: what `forget` left of it goes from the archive, and from the quarantine.

`forget` (lua/deletion.lua) has taken the device out of Redis, and said which of its records go: those below an id
(telemetry/hot_store/deletions.py). What is left to do can be begun anew at any time, and two that do it at once do no
harm:

    settle      the save or import that was under way then has ended, so nothing brings such a record any more: a save
                that intends later reads its ranges after that (saver.py, guard 5), and the ids that an import had
                were taken back
    look        which files may hold such records: those whose bounds in the log allow it, and which were not looked
                into yet. Files never change
    erase       a day's files at a time: those that do hold some are written anew without them, and take the old ones'
                place in one commit, which says how many records went, and which is refused if another changed that
                day's files, or deleted anything, since the table was looked at: look again
    count       what the commits have said so far is noted, each once, by the table's version
    cleanse     what is of the device in the quarantine goes
    complete    when there is nothing to look at any more, and if nobody asked for it again: Redis forgets the name

It works for some seconds at a time, since saves wait for it, and remembers in between which files it has looked into.
tests/worker/deletion_model.py explores it beside saves, imports and merges, and shows what stays without each of these.
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
"""A job goes on for so long: saves wait for it."""

COMMIT_FILES, COMMIT_BYTES = 32, 2**27
"""Most files of a commit, and bytes of them beside the first: what is lost if it is cut off."""

MOST_MEMORY_BYTES = 2**31
"""What writing a file anew may take where texts are so long that the setting is too little."""

FAILURES = (*READ_ERRORS, duckdb.Error, NotTogether)


class Eraser:
    """Carries deletions out. `reached` hears the name of each step before it is taken; tests kill it there."""

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
        self._clean: dict[Mark, set[str]] = {}  # files that were looked into and hold nothing of it

    def erase(self, shard: Shard) -> int:
        """Go on with a shard's deletions until they are done or `BUSY_S` have passed. Returns how many are done now."""
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
                log.error("deletion %s: cannot go on, trying again: %s", mark.name, why)
                self._note(shard, mark, state=deletions.FAILED, trouble=why)
            if self._monotonic() >= until_s:
                break
        return done

    def _go_on(self, shard: Shard, mark: Mark, until_s: float) -> bool:
        """Go on with one; whether it is done."""
        if (why := apart(shard, self._archive)) is not None:
            raise NotTogether(why)
        self._begin(shard, mark)
        if not self._settle(shard):
            return False
        self._reached("cleanse")
        gone = deletions.cleanse(shard, mark)
        if gone:
            found = deletions.read(shard, mark.name)
            self._note(shard, mark, quarantined=gone + (found.quarantined if found else 0))
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
        """Look into files until some were replaced, since the table is another one then. False if time is up."""
        for files in days:
            is_changed = self._erase_some(mark, table, files)
            if self._monotonic() >= until_s:
                self._count(shard, mark, self._archive.open_existing())
                return False
            if is_changed:
                break
        return True

    def _begin(self, shard: Shard, mark: Mark) -> None:
        found = deletions.read(shard, mark.name)
        if found is not None and (found.state != deletions.RUNNING or found.version is None):
            table = self._archive.open_existing()
            version = table.version() if table is not None else -1
            version = version if found.version is None else found.version
            deletions.note(
                shard, mark.name, found.version, {"state": deletions.RUNNING, "version": version, "trouble": ""}
            )

    def _settle(self, shard: Shard) -> bool:
        """Whether the intent that stands, which may be older than the deletion, has ended; a later one is harmless."""
        self._reached("settle")
        intent = shard.state().intent
        if intent is None:
            return True
        self._saver.save(shard)  # which ends what another left
        return shard.state().intent != intent

    def _days(self, table: DeltaTable, mark: Mark) -> list[list[LiveFile]]:
        """The files that may hold what goes and were not looked into, in portions of one day."""
        clean = self._clean.setdefault(mark, set())
        files = [file for file in self._archive.live(table) if may_hold(file, mark) and file.path not in clean]
        files.sort(key=lambda file: (file.day, file.path))
        return [part for _, day in groupby(files, _day_of) for part in portions(list(day))]

    def _erase_some(self, mark: Mark, table: DeltaTable, files: Sequence[LiveFile]) -> bool:
        """Have files of a day hold nothing of it. Returns whether any did."""
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
        self._archive.erase(table, old, new, self._now_ms(), mark.name, sum(held.values()))
        clean.update(str(self._archive.root / file.path) for file in new)
        log.info("deletion %s: %d records of %s went", mark.name, sum(held.values()), old[0].day)
        return True

    def _count(self, shard: Shard, mark: Mark, table: DeltaTable | None) -> None:
        """Add what the commits since the last look have said, each once."""
        self._reached("count")
        found = deletions.read(shard, mark.name)
        if found is None or found.version is None or table is None:
            return
        erased = self._archive.erased(mark.name, found.version, table.version())
        deletions.note(
            shard,
            mark.name,
            found.version,
            {
                "version": table.version(),
                "archived_records": found.archived_records + sum(one.records for one in erased),
                "files": found.files + sum(one.files for one in erased),
                "days": " ".join(sorted({*found.days, *(one.day for one in erased)})),
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
        found = deletions.read(shard, mark.name)
        if found is not None:
            deletions.note(shard, mark.name, found.version, fields)


def condition_of(mark: Mark) -> str:
    """SQL of which records go."""
    return f"device_id = {sql_text(mark.device_id)} AND id < {mark.before_id}"


def rewritten(
    data_files: DataFiles, connection: duckdb.DuckDBPyConnection, condition: str, held: Mapping[LiveFile, int]
) -> list[DataFile]:
    """New files without the records that fulfil a condition, of which each old file has so many.

    If the disk is full none is left, so that the next attempt finds the room.
    """
    made: list[DataFile] = []
    try:
        for file, records in held.items():
            write = partial(data_files.without, connection, file, condition, records)
            if (found := with_memory(connection, write, MOST_MEMORY_BYTES)) is not None:
                made.append(found)
    except (OSError, duckdb.Error):
        for one in made:
            (data_files.root / one.path).unlink(missing_ok=True)
        raise
    return made


def may_hold(file: LiveFile, mark: Mark) -> bool:
    """Whether the log allows that a file holds records that go."""
    if file.least_id is not None and file.least_id >= mark.before_id:
        return False
    if file.first_device is None or file.last_device is None:
        return True
    return file.first_device <= mark.device_id <= file.last_device


def portions(files: Sequence[LiveFile]) -> Iterator[list[LiveFile]]:
    """A day's files as they are committed together."""
    part: list[LiveFile] = []
    size_bytes = 0
    for file in files:
        if part and (len(part) == COMMIT_FILES or size_bytes + file.size_bytes > COMMIT_BYTES):
            yield part
            part, size_bytes = [], 0
        part.append(file)
        size_bytes += file.size_bytes
    if part:
        yield part


def _day_of(file: LiveFile) -> date:
    return file.day
