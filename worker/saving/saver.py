"""Saves a shard from the hot store to the archive, exactly once.

A commit number n names one save. Redis has `intent` (the entries of the save) and `committed` (the last finished save);
the table has t, the last committed save. Whatever process dies at whatever time, these three values define the
remaining steps:

    no intent, committed = t      nothing is under way: plan and intend
    intent n, t = n               it was committed: only the trim is left
    intent n, t = committed       it was not: write the intent's ranges again, under new file names; unless a chunk
                                  was trimmed: then the archive is an older one
    anything else                 this Redis did not write this archive, or not all of it: stop

Five guards make a second worker, or one that was stopped past every lease and runs on, harmless:

    1  an intent is written only if there is none and `committed` has not moved      (lua/save.lua: intend)
    2  no file is ever overwritten: each attempt has random names                    (DataFiles.write)
    3  the commit uses the very handle that was asked for t                          (commits.commit)
    4  a chunk is trimmed only while the intent is the caller's and it is its turn   (lua/save.lua: finish)
    5  after the records were read, the stored intent is still the same              (_read)

Records read for the plan need not be read again if, once the intent is stored, Redis has not been restarted since they
were read, no device was deleted, and no save has ended (save_plan.py: still_holds).

An intent without ranges belongs to an import (bulk_import.py), whose commit has its own records. A worker that finds an
unfinished one handles it like any other: if it is not committed, it is committed without files, and the import tries
again; if it is committed, its files are offered to latest.

tests/worker/save_model.py explores every interleaving, and shows a loss or a duplicate without each guard.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping

import duckdb
from deltalake import DeltaTable

from telemetry.archive.operations import commits, import_progress
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.entry_codec import Intent, decode_intent
from telemetry.hot_store.operations.latest_rebuild import deleted_devices
from telemetry.hot_store.operations.quarantine import quarantine_unreadable
from telemetry.hot_store.operations.save import NO_MARKS, finish_chunk, intend
from telemetry.hot_store.shard import Shard, State
from telemetry.model.errors import IntentChanged, NotTogether
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import NO_ARCHIVE
from telemetry.system.failpoints import Step, no_step_reporter
from worker.saving.latest_rebuild import rebuild, tell
from worker.saving.save_budget import Bounds
from worker.saving.save_plan import Plan, Tail, Turns, choose, decode, read, still_holds

log = logging.getLogger(__name__)


class Saver:
    """Saves shards. `reached` is called with the name of each step before it; tests kill the process there."""

    def __init__(
        self,
        archive: Archive,
        connection: duckdb.DuckDBPyConnection,
        now_ms: Callable[[], int],
        bounds: Bounds | None = None,
        quarantine_max_bytes: int = 16 * 2**20,
        reached: Step = no_step_reporter,
    ) -> None:
        self._archive = archive
        self._connection = connection
        self._now_ms = now_ms
        self._bounds = bounds or Bounds()
        self._quarantine_max_bytes = quarantine_max_bytes
        self._reached = reached
        self._turns: defaultdict[int, Turns] = defaultdict(Turns)  # by shard

    def save(self, shard: Shard) -> int:
        """Finish an interrupted save, or save the unsaved records. Returns the number of records taken.

        Raises `IntentChanged` if another worker was faster (try again), `NotTogether` if Redis and archive do not
        belong together, and disk errors; no record is lost by any of them.
        """
        self._reached("look")
        state = shard.state()
        if state.intent is not None:
            return self._recover(shard, decode_intent(state.intent), state)
        archived = self._archive.committed(self._open(state.committed), shard.shard)
        if archived != state.committed:
            raise _not_together(archived, state.committed)
        plan = choose(shard, self._bounds, self._now_ms() * 1_000 // DAY_US, self._turns[shard.shard])
        if not plan.ranges:
            return 0
        intent = Intent(commit_number(state.committed), plan.ranges)
        self._reached("intend")
        if not intend(shard, state.committed, intent.encode()):
            raise IntentChanged("cannot save: another worker is saving this shard")
        return self._write(shard, intent, state.committed, plan)

    def is_behind(self, shard: Shard) -> bool:
        """True if the shard's last save left out entries because of its bounds."""
        return self._turns[shard.shard].is_behind

    def _recover(self, shard: Shard, intent: Intent, state: State) -> int:
        self._reached("recover")
        if self._is_committed(self._open(state.committed), shard, intent, state.committed):
            self._offer_imported(shard, intent)
            return self._finish(shard, intent)
        if state.finishing:  # it was committed and partly trimmed
            self._require(shard, intent)
            raise _not_together(state.committed, f"{intent.commit}, and has trimmed part of it")
        return self._write(shard, intent, state.committed, None)

    def _open(self, committed: str) -> DeltaTable:
        """The archive's table, created for a new archive. Raises `NotTogether` if it has disappeared."""
        if committed == "0":
            return self._archive.open()
        table = self._archive.open_existing()
        if table is None:
            raise NotTogether(f"{NO_ARCHIVE}; `whimbrel recover` lists the remedies")
        return table

    def _is_committed(self, table: DeltaTable, shard: Shard, intent: Intent, before: str) -> bool:
        """True if the save was committed, False if the archive is as `before` it. Raises `NotTogether` otherwise."""
        archived = self._archive.committed(table, shard.shard)
        if archived == intent.commit:
            self._archive.make_last()
            return True
        if archived != before:
            self._require(shard, intent)
            raise _not_together(archived, f"{before}, and has {intent.commit} under way")
        return False

    def _write(self, shard: Shard, intent: Intent, before: str, plan: Plan | None) -> int:
        """Write, commit and finish. A crash before the commit leaves files that no reader sees."""
        tail = self._read(shard, intent, plan)
        if tail.unreadable:
            self._reached("quarantine")
            dropped = quarantine_unreadable(shard, intent, tail.unreadable, self._quarantine_max_bytes)
            log.error(
                "%d records could not be read and are in quarantine: %s", len(tail.unreadable), tail.unreadable[0]
            )
            if dropped:
                log.error("quarantine is full: its %d oldest were dropped", dropped)
        self._reached("write")
        files = self._archive.data_files.write(tail.records, intent.commit)
        self._reached("open")
        table = self._open(before)
        if self._is_committed(table, shard, intent, before):
            self._offer_imported(shard, intent)
        else:
            self._reached("commit")
            commits.commit(self._archive, table, files, shard.shard, intent.commit, self._now_ms())
        return self._finish(shard, intent, plan.marks if plan is not None and tail is plan.tail else NO_MARKS)

    def _read(self, shard: Shard, intent: Intent, plan: Plan | None) -> Tail:
        """The records of the intent's ranges, read while the intent is stored (guard 5).

        If they are unchanged since planning, they are not read again.
        """
        self._reached("read")
        planned = plan.tail if plan is not None and still_holds(shard, plan) else None
        raw = [] if planned is not None else read(shard, intent.ranges)
        self._reached("still")
        self._require(shard, intent)
        return planned if planned is not None else decode(shard, intent.ranges, raw)

    def _finish(self, shard: Shard, intent: Intent, marks: Mapping[str, bytes] = NO_MARKS) -> int:
        """Trim the records that are in the archive. After a crash here they are in both; readers drop Redis's copy.

        `marks` are the marks that were read (`finish_chunk`).
        """
        self._reached("finish")
        done = self._require(shard, intent).finishing
        for number in range(done, intent.chunk_count):
            self._reached(f"finish {number}")
            finish_chunk(shard, intent, number, marks)
        self._reached("done")
        return sum(found.records for found in intent.ranges)

    def _offer_imported(self, shard: Shard, intent: Intent) -> None:
        """Offer the records of an interrupted import to latest; later if Redis has no room for them now."""
        if not intent.is_import:
            return
        self._reached("offer")
        deleted = deleted_devices(shard)  # before the table
        files = import_progress.imported_files(self._archive, self._archive.open(), intent.commit)
        if files:
            tell(shard, self._archive, self._connection, files, deleted)
        else:  # the files were merged meanwhile
            rebuild(shard, self._archive, self._connection)

    def _require(self, shard: Shard, intent: Intent) -> State:
        """The shard's state. Raises `IntentChanged` unless the stored intent still equals this one."""
        state = shard.state()
        if state.intent != intent.encode():
            raise IntentChanged("the intent was finished by another worker, or Redis was restored")
        return state


def _not_together(archived: str, known: str) -> NotTogether:
    return NotTogether(
        f"the archive's last commit is {archived}, Redis has {known}: "
        "one of them was restored, emptied or swapped; `whimbrel recover` lists the remedies"
    )
