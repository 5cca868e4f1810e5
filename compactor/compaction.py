"""Compaction, retention and cleanup: carries out the plans of plan.py, and deletes files that are no longer needed.

A rewrite never changes the set of rows. It merges files, counts their rows, and replaces the old files by the new ones
in one commit, with the handle from which it was planned; the commit fails if another process changed that day since. A
crash before the commit leaves files that no reader sees.

Cleanup deletes files that are in no table version still in use by a query, belong to no attempt that may still commit,
and do not wait to be forwarded (telemetry/archive/log_retention.py): those that were unlisted for `grace_s`. When it
first finds a compaction's unlisted file, it fences the day, so that a suspended compactor's commit fails and the file
cannot get into the table any more. For a save's file the time starts when no intent with its number is in Redis.

tests/compactor/compaction_model.py explores every interleaving, and shows which fault each of these rules prevents.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
from deltalake import DeltaTable

from compactor.plan import Limits, Rewrite, expired, rewrites
from telemetry.archive.data_files import COMPACTED, LiveFile
from telemetry.archive.log_retention import Held, nothing_held
from telemetry.archive.operations import commits
from telemetry.archive.table import Archive, kinds_of
from telemetry.model.errors import PlanOutdated
from telemetry.model.utc import day_of
from telemetry.system.failpoints import Step, no_step_reporter

log = logging.getLogger(__name__)

GIVEN_UP_DAYS = 64
"""Maximum number of days deleted in one commit; one commit per day would be slow for devices with wrong dates."""

FENCED_DAYS = 64
"""Maximum number of days fenced per cleanup, one commit each; further days follow in the next cleanup."""

YESTERDAY = timedelta(days=1)


class Compactor:
    """Keeps the number of files low.

    With `is_all` every day is merged now, as if it were past and unchanged. `reached` is called with the name of each
    step before it; tests kill the process there.
    """

    def __init__(
        self,
        archive: Archive,
        connection: Callable[[], duckdb.DuckDBPyConnection],
        now_us: Callable[[], int],
        limits: Limits | None = None,
        reached: Step = no_step_reporter,
        is_all: bool = False,
    ) -> None:
        self._archive = archive
        self._connection = connection
        self._now_us = now_us
        self._limits = limits or Limits()
        if is_all:
            self._limits = self._limits._replace(quiet_s=0)
        self._is_all = is_all
        self._reached = reached
        self._after = date.min  # day of the last rewrite, so that days take turns

    def due(self) -> list[Rewrite]:
        """The rewrites that are due, most urgent first."""
        table = self._archive.open_existing()
        return [] if table is None else self._due(table)

    def _due(self, table: DeltaTable) -> list[Rewrite]:
        open_day = date.min if self._is_all else self._today()
        return rewrites(self._archive.live(table), open_day, self._now_ms(), self._limits, self._after)

    def compact(self) -> Rewrite | None:
        """Carry out the most urgent rewrite. Returns it, or None if none is due.

        Raises `PlanOutdated` if another process changed that day meanwhile; then nothing was changed.
        """
        self._reached("plan")
        table = self._archive.open_existing()
        due = [] if table is None else self._due(table)
        if table is None or not due:
            return None
        rewrite = due[0]
        self._reached("merge")
        made = self._archive.data_files.merge(self._connection, rewrite.files, rewrite.pieces)
        self._reached("commit")
        commits.replace(self._archive, table, rewrite.files, made, self._now_ms())
        self._reached("done")
        self._after = rewrite.day if rewrite.day < self._today() - YESTERDAY else self._after
        log.info("%s: merged %d files into %d", rewrite.day, len(rewrite.files), len(made))
        return rewrite

    def expired(self) -> list[date]:
        """The days beyond retention."""
        table = self._archive.open_existing()
        return [] if table is None else expired(self._archive.live(table), self._today(), self._limits)

    def retain(self, is_over: Callable[[], bool] = lambda: False) -> list[date]:
        """Delete the days beyond retention, several per commit, until `is_over`. Returns them."""
        given_up: list[date] = []
        days = self.expired()
        for at in range(0, len(days), GIVEN_UP_DAYS):
            if is_over():
                break
            given_up += self._give_up(set(days[at : at + GIVEN_UP_DAYS]))
        return given_up

    def _give_up(self, days: Set[date]) -> list[date]:
        table = self._archive.open()
        files: dict[date, list[LiveFile]] = defaultdict(list)
        for file in self._archive.live(table):
            if file.day in days:
                files[file.day].append(file)
        if files:
            self._reached("give up")
            commits.give_up(self._archive, table, [file for some in files.values() for file in some], self._now_ms())
        for day, some in sorted(files.items()):
            rows = sum(file.rows or 0 for file in some)
            log.warning("%s is beyond retention: deleted %d records in %d files", day, rows, len(some))
        return sorted(files)

    def _now_ms(self) -> int:
        return self._now_us() // 1_000

    def _today(self) -> date:
        return day_of(self._now_us())


class _Unlisted(NamedTuple):
    """Time at which a file was first found unlisted, and the table's version then: its entry is not above that."""

    at_s: float
    version: int


class Sweep:
    """Deletes unneeded files. It remembers when it first found each file unlisted, so keep one instance."""

    def __init__(
        self,
        archive: Archive,
        intents: Callable[[], Iterable[str]],
        monotonic: Callable[[], float],
        grace_s: float,
        reached: Step = no_step_reporter,
        held: Held = nothing_held,
    ) -> None:
        self._held = held
        self._archive = archive
        self._intents = intents
        self._monotonic = monotonic
        self._grace_s = grace_s
        self._reached = reached
        self._since: dict[str, _Unlisted] = {}

    def sweep(self) -> list[str]:
        """Delete files that have been unlisted for long enough. Returns their paths."""
        table = self._archive.open_existing()
        unlisted = self._archive.unlisted(table) if table is not None else set()
        if not unlisted:
            self._since.clear()
            return []
        unlisted -= self._fence_some(unlisted)
        self._reached("look again")
        at_s = self._monotonic()  # before the intents: an import discards files that are too old before its own intent
        under_way = {kind for commit in self._intents() for kind in kinds_of(commit)}  # before the table: other saves
        table = self._archive.open()  # were committed before that, or never will be
        unlisted &= self._archive.unlisted(table)
        now = _Unlisted(at_s, table.version())
        ended = (path for path in unlisted if _kind(path) not in under_way)
        self._since = {path: self._since.get(path, now) for path in ended}
        held = self._held()
        expired_paths = [
            path
            for path, since in self._since.items()
            if now.at_s - since.at_s >= self._grace_s and (held is None or since.version <= held)
        ]
        if expired_paths:
            self._archive.make_last()  # otherwise a power cut could restore a table that lists deleted files
            self._reached("delete")
            self._delete(expired_paths)
        return expired_paths

    def _fence_some(self, paths: Set[str]) -> set[str]:
        """Fence the days of a compaction's newly found files. Returns the files beyond the maximum number of days,
        which are left to the next cleanup.
        """
        new = {path: _day(path) for path in paths - self._since.keys() if _kind(path) == COMPACTED}
        fenced = sorted(set(new.values()))[:FENCED_DAYS]
        for day in fenced:
            self._reached("fence")
            self._fence(day)
        return {path for path, day in new.items() if day not in fenced}

    def _delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            Path(path).unlink(missing_ok=True)
            self._since.pop(path, None)
        log.info("deleted %d files that are no longer in the table", len(paths))

    def _fence(self, day: date) -> None:
        """If the fence fails, another process committed; read its commit."""
        try:
            commits.fence(self._archive, self._archive.open(), day)
        except PlanOutdated:
            commits.fence(self._archive, self._archive.open(), day)


def _kind(path: str) -> str:
    """`compact`, or the save or import that a file belongs to (`kinds_of`)."""
    return Path(path).name.rpartition("-")[0]


def _day(path: str) -> date:
    return date.fromisoformat(Path(path).parent.name.removeprefix("date="))
