"""Fewer files, and no older ones than wanted: plans of plan.py carried out, and what nobody needs any more deleted.

A rewrite never changes the set of rows: it merges files, counts, and puts the new ones in the place of the
old in one commit, with the very handle that it was planned with, which is refused if another changed that day
since. A crash before the commit leaves files that no reader sees.

The sweep deletes files that are in no version of the table that a query may still read, nor of an attempt
that may still commit, nor have yet to be forwarded (telemetry/archive/log_retention.py): those that it has known for
`grace_s` to be unlisted for good. When it first sees a compaction's file, it fences the day, so that a compactor that
was only asleep is refused and the file can't get into the table any more; a save's file counts from when no intent of
that number stands in Redis.

tests/compactor/compaction_model.py explores every interleaving, and shows what goes wrong without each of these.
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
from telemetry.archive.table import Archive, kinds_of
from telemetry.model.errors import PlanOutdated
from telemetry.model.utc import day_of
from telemetry.system.failpoints import Step, no_step_reporter

log = logging.getLogger(__name__)

GIVEN_UP_DAYS = 64
"""Days given up in one commit. Each by itself took 0.1 s, and a device with wrong dates may make thousands."""

FENCED_DAYS = 64
"""Days fenced in one sweep, a commit each; those of further days are looked at in the next."""

YESTERDAY = timedelta(days=1)


class Compactor:
    """Keeps the archive's files few.

    With `is_all` every day is merged now, as if it were over and quiet. `reached` hears the name of each step
    before it is taken; tests kill it there.
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
        self._after = date.min  # the day that was rewritten last, so that days take turns

    def due(self) -> list[Rewrite]:
        """The rewrites that are due, the most urgent first."""
        table = self._archive.open_existing()
        return [] if table is None else self._due(table)

    def _due(self, table: DeltaTable) -> list[Rewrite]:
        open_day = date.min if self._is_all else self._today()
        return rewrites(self._archive.live(table), open_day, self._now_ms(), self._limits, self._after)

    def compact(self) -> Rewrite | None:
        """Carry out the rewrite that is most urgent. Returns it, or None if none is due.

        Raises `PlanOutdated` if another changed that day meanwhile; nothing was changed then.
        """
        self._reached("plan")
        table = self._archive.open_existing()
        found = [] if table is None else self._due(table)
        if table is None or not found:
            return None
        rewrite = found[0]
        self._reached("merge")
        made = self._archive.data_files.merge(self._connection, rewrite.files, rewrite.pieces)
        self._reached("commit")
        self._archive.replace(table, rewrite.files, made, self._now_ms())
        self._reached("done")
        self._after = rewrite.day if rewrite.day < self._today() - YESTERDAY else self._after
        log.info("%s: %d files are %d now", rewrite.day, len(rewrite.files), len(made))
        return rewrite

    def expired(self) -> list[date]:
        """The days that are kept no longer."""
        table = self._archive.open_existing()
        return [] if table is None else expired(self._archive.live(table), self._today(), self._limits)

    def retain(self, is_over: Callable[[], bool] = lambda: False) -> list[date]:
        """Give up the days that are kept no longer, some in a commit, until `is_over`. Returns them."""
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
            self._archive.give_up(table, [file for some in files.values() for file in some], self._now_ms())
        for day, some in sorted(files.items()):
            rows = sum(file.rows or 0 for file in some)
            log.warning("%s is kept no longer: %d records in %d files were given up", day, rows, len(some))
        return sorted(files)

    def _now_ms(self) -> int:
        return self._now_us() // 1_000

    def _today(self) -> date:
        return day_of(self._now_us())


class _Unlisted(NamedTuple):
    """When a file was first seen unlisted, and the table's version then: the entry that added it isn't above that."""

    at_s: float
    version: int


class Sweep:
    """Deletes what nobody needs any more. It remembers since when it saw each file unlisted: keep one for long."""

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
        """Delete what has been unlisted for long enough. Returns the paths."""
        table = self._archive.open_existing()
        found = self._archive.unlisted(table) if table is not None else set()
        if not found:
            self._since.clear()
            return []
        found -= self._fence_some(found)
        self._reached("look again")
        at_s = self._monotonic()  # before the intents: an import gives up on files that it had too long before its own
        under_way = {kind for commit in self._intents() for kind in kinds_of(commit)}  # before the table: what isn't
        table = self._archive.open()  # under way was committed before that, or never
        found &= self._archive.unlisted(table)
        now = _Unlisted(at_s, table.version())
        ended = (path for path in found if _kind(path) not in under_way)
        self._since = {path: self._since.get(path, now) for path in ended}
        held = self._held()
        gone = [
            path
            for path, since in self._since.items()
            if now.at_s - since.at_s >= self._grace_s and (held is None or since.version <= held)
        ]
        if gone:
            self._archive.make_last()  # or a power cut could bring back a table that lists what is deleted now
            self._reached("delete")
            self._delete(gone)
        return gone

    def _fence_some(self, found: Set[str]) -> set[str]:
        """Fence the days of a compaction's files that were not seen before. Returns those for which there are too many
        days: they are left to the next sweep."""
        new = {path: _day(path) for path in found - self._since.keys() if _kind(path) == COMPACTED}
        fenced = sorted(set(new.values()))[:FENCED_DAYS]
        for day in fenced:
            self._reached("fence")
            self._fence(day)
        return {path for path, day in new.items() if day not in fenced}

    def _delete(self, gone: Sequence[str]) -> None:
        for path in gone:
            Path(path).unlink(missing_ok=True)
            self._since.pop(path, None)
        log.info("deleted %d files that are no longer in the table", len(gone))

    def _fence(self, day: date) -> None:
        """A fence that another refuses is followed by a look at what that one committed."""
        try:
            self._archive.fence(self._archive.open(), day)
        except PlanOutdated:
            self._archive.fence(self._archive.open(), day)


def _kind(path: str) -> str:
    """`compact`, or of which save or import a file is (`kinds_of`)."""
    return Path(path).name.rpartition("-")[0]


def _day(path: str) -> date:
    return date.fromisoformat(Path(path).parent.name.removeprefix("date="))
