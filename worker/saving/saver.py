"""Saving a shard: from the hot store to the archive, exactly once.

A commit number n names one save. In Redis stand `intent` (what the save takes) and `committed` (the last
that was finished); in the table t, the last that was committed. Whatever dies at whatever instant, these
three tell what is left to do:

    no intent, committed = t      nothing is under way: plan and intend
    intent n, t = n               it was committed: only the trim is left
    intent n, t = committed       it was not: write the intent's ranges again, under new file names; unless a chunk
                                  was trimmed: then the archive is an older one
    anything else                 this Redis did not write this archive, or not all of it: stop

Five guards make a second worker, or one that was stopped past every lease and runs on, harmless:

    1  an intent is written only if there is none and `committed` has not moved      (lua/save.lua: intend)
    2  no file is ever overwritten: each attempt has random names                    (DataFiles.write)
    3  the commit uses the very handle that was asked for t                          (Archive.commit)
    4  a chunk is trimmed only while the intent is the caller's and it is its turn   (lua/save.lua: finish)
    5  after the records were read, the intent is still there, byte-equal            (_read)

What was read for the plan counts as read again if, once the intent stands, Redis runs on since before it was read, no
device was deleted meanwhile, and no save ended (save_plan.py: still_holds).

An intent without ranges is that of an import (bulk_import.py), which brings records of its own to the commit. Whoever
finds one that nobody finished treats it like any: not committed, it is committed without files, and the import tries
again; committed, latest is told of its files.

tests/worker/save_model.py explores every interleaving, and shows a loss or a double without each.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping

import duckdb
from deltalake import DeltaTable

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
    """Saves shards. `reached` hears the name of each step before it is taken; tests kill it there."""

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
        """Finish what an earlier worker left, else save what waits. Returns how many records it took.

        Raises `IntentChanged` if another worker was faster (look again), `NotTogether` if Redis and the
        archive don't belong together, and whatever the disk says; nothing is lost by any of them.
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
        """Whether the shard's last save left something that it could have taken but for its bounds."""
        return self._turns[shard.shard].is_behind

    def _recover(self, shard: Shard, intent: Intent, state: State) -> int:
        self._reached("recover")
        if self._is_committed(self._open(state.committed), shard, intent, state.committed):
            self._offer_imported(shard, intent)
            return self._finish(shard, intent)
        if state.finishing:  # it was committed, and part of it trimmed
            self._require(shard, intent)
            raise _not_together(state.committed, f"{intent.commit}, and has trimmed part of it")
        return self._write(shard, intent, state.committed, None)

    def _open(self, committed: str) -> DeltaTable:
        """The archive's table, begun here if it has nothing to hold yet. Raises `NotTogether` if it is gone."""
        if committed == "0":
            return self._archive.open()
        table = self._archive.open_existing()
        if table is None:
            raise NotTogether(f"{NO_ARCHIVE}; `whimbrel recover` says what can be done")
        return table

    def _is_committed(self, table: DeltaTable, shard: Shard, intent: Intent, before: str) -> bool:
        """Whether the save happened, or the archive is as `before` it. Raises `NotTogether` if it is neither."""
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
            self._archive.commit(table, files, shard.shard, intent.commit, self._now_ms())
        return self._finish(shard, intent, plan.marks if plan is not None and tail is plan.tail else NO_MARKS)

    def _read(self, shard: Shard, intent: Intent, plan: Plan | None) -> Tail:
        """What the intent's ranges hold, read after the intent stood and while it still stands (guard 5).

        If that is what the plan read, it isn't read in full again.
        """
        self._reached("read")
        planned = plan.tail if plan is not None and still_holds(shard, plan) else None
        raw = [] if planned is not None else read(shard, intent.ranges)
        self._reached("still")
        self._require(shard, intent)
        return planned if planned is not None else decode(shard, intent.ranges, raw)

    def _finish(self, shard: Shard, intent: Intent, marks: Mapping[str, bytes] = NO_MARKS) -> int:
        """Trim what is in the archive now. A crash here leaves records in both; readers drop the tail's.

        `marks` are those that were read (`Shard.finish`).
        """
        self._reached("finish")
        done = self._require(shard, intent).finishing
        for number in range(done, intent.chunk_count):
            self._reached(f"finish {number}")
            finish_chunk(shard, intent, number, marks)
        self._reached("done")
        return sum(found.records for found in intent.ranges)

    def _offer_imported(self, shard: Shard, intent: Intent) -> None:
        """Have latest know what an import brought that was cut off; later, where Redis has no room for that now."""
        if not intent.is_import:
            return
        self._reached("offer")
        deleted = deleted_devices(shard)  # before the table
        files = self._archive.imported(self._archive.open(), intent.commit)
        if files:
            tell(shard, self._archive, self._connection, files, deleted)
        else:  # they were merged meanwhile
            rebuild(shard, self._archive, self._connection)

    def _require(self, shard: Shard, intent: Intent) -> State:
        """The shard's state. Raises `IntentChanged` unless the stored intent is still this one, byte for byte."""
        state = shard.state()
        if state.intent != intent.encode():
            raise IntentChanged("the intent was finished by another worker, or Redis was restored")
        return state


def _not_together(archived: str, known: str) -> NotTogether:
    return NotTogether(
        f"the archive's last commit is {archived}, Redis has {known}: "
        "one of them was restored, emptied or swapped; `whimbrel recover` says what can be done"
    )
