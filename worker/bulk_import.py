"""Import of records from files into the archive by the save protocol, without storing them in Redis.

Each batch is a commit of its shard, with a commit number like any save's (saver.py). The same commit of the table has
the import's progress. Whenever a program dies, a batch is in the archive together with its progress, or neither is; a
restarted import continues after the recorded progress.

    allot    Redis assigns ids to the batch, and records a token for them
    write    sorted files, one per day, that the table does not name yet
    intend   an intent without ranges, if there is none and `committed` has not moved (guard 1), and if the token is
             still known: a Redis restored to an earlier time could assign the ids again, and a deletion removes
             records by ids below its own
    commit   files, commit number and progress in one commit, with the handle that returned both numbers (guard 3)
    offer    update latest
    finish   `committed` becomes the commit number, the intent is removed (guard 4)

A worker that finds the intent cannot know whether the import is still running, and treats it as interrupted. Before the
commit it commits the number without files, so that the import's commit fails and the batch is repeated. After the
commit it offers and finishes in the import's place. The files are written before the intent, so the intent is
short-lived. Cleanup may delete files without an intent after `archive.grace_seconds`; an import suspended for half of
that discards its files.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from telemetry.archive.data_files import DataFile
from telemetry.archive.operations import commits, import_progress
from telemetry.archive.operations.import_progress import Imported, Progress
from telemetry.archive.schema import COLUMNS
from telemetry.archive.table import Archive, commit_number, import_kind
from telemetry.hot_store.entry_codec import Intent, decode_intent
from telemetry.hot_store.operations.latest_rebuild import deleted_devices
from telemetry.hot_store.operations.save import allot, finish_chunk, intend_allotted
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, IntentChanged, NotTogether, StoreError
from telemetry.startup.store_setup import apart
from telemetry.system.failpoints import Step, no_step_reporter
from worker.saving.latest_rebuild import tell
from worker.saving.saver import Saver

log = logging.getLogger(__name__)

TRIES = 20
LOOK_S = 0.02
"""Interval of polling another program's intent, s; a save's exists for about 100 ms."""

LEFT_S = 30.0
"""Age of an intent after which its save counts as interrupted without a worker; the import then finishes it, s."""


class MovedMeanwhile(StoreError):
    """Another process runs the import of the same name, or its undo."""


class Written(NamedTuple):
    """Files of a batch before their commit: its ids, the random bits of its number, the token of its ids, the time they
    were written, the number of deleted devices before the ids were assigned, and whether some records have another
    transport than `import`.
    """

    files: list[DataFile]
    ids: range
    bits: int
    token: str
    since_s: float
    deleted: int
    has_other_transports: bool


class Importer:
    """Imports batches of one import into the archive. `reached` is called before each step.

    `usable_s` is the maximum age of files before their intent is written: at most half of the cleanup's grace period.
    """

    def __init__(
        self,
        name: str,
        archive: Archive,
        connection: duckdb.DuckDBPyConnection,
        saver: Saver,
        now_ms: Callable[[], int],
        max_devices: int,
        usable_s: float,
        reached: Step = no_step_reporter,
    ) -> None:
        self._name = name
        self._archive = archive
        self._connection = connection
        self._saver = saver
        self._now_ms = now_ms
        self._max_devices = max_devices
        self._usable_s = usable_s
        self._reached = reached

    def progress(self, shard: Shard) -> Progress:
        """Progress of this import in a shard."""
        return import_progress.progress(self._archive.open_existing(), self._name, shard.shard) or Progress()

    def settle(self, shard: Shard) -> None:
        """Finish an import that was interrupted after its commit, if no worker does."""
        intent = shard.state().intent
        committed = self._archive.committed(self._archive.open_existing(), shard.shard)
        if intent is not None and decode_intent(intent).commit == committed:
            with contextlib.suppress(IntentChanged):  # a worker was faster
                self._saver.save(shard)

    def bring(self, shard: Shard, records: pa.Table, before: Progress, after: Progress) -> None:
        """Commit `records` and the change of the import's progress from `before` to `after`.

        `records` has `COLUMNS` without `id` and `received_at`, all of devices of the shard, in the order of arrival.
        Durable on return. Raises `BusyError` if there would be too many devices, `NotTogether`, `MovedMeanwhile`, and
        disk errors; then they are not in the archive, unless the progress shows that they are.
        """
        for attempt in range(TRIES):
            try:
                if records.num_rows:
                    return self._bring(shard, records, before, after)
                return self._note(shard, before, after)
            except IntentChanged as error:
                log.info("shard %d: %s; repeating the batch", shard.shard, error)
                self._require(self._archive.open(), shard, before)
                time.sleep(LOOK_S * attempt)
        raise BusyError("cannot import: other saves keep interfering")

    def _note(self, shard: Shard, before: Progress, after: Progress) -> None:
        table = self._archive.open()
        self._require(table, shard, before)
        if before != after:
            commits.note_progress(self._archive, table, self._name, shard.shard, after)

    def _require(self, table: DeltaTable, shard: Shard, before: Progress) -> None:
        progress = import_progress.progress(table, self._name, shard.shard) or Progress()
        if progress != before:
            what = "takes this import back" if progress.is_undone else "imports the same just now"
            raise MovedMeanwhile(f"cannot go on: another command {what}")

    def _bring(self, shard: Shard, records: pa.Table, before: Progress, after: Progress) -> None:
        self._free(shard)
        self._check_devices(shard, records)
        written = self._write(shard, records)
        intent, committed = self._intend(shard, written)
        try:
            self._commit(shard, written, intent, committed, before, after)
        except StoreError:
            if shard.state().intent == intent.encode():
                self._saver.save(shard)  # without the files, so that no client waits for it
            raise
        self._finish(shard, intent, written)

    def _commit(
        self, shard: Shard, written: Written, intent: Intent, committed: str, before: Progress, after: Progress
    ) -> None:
        if time.monotonic() - written.since_s > self._usable_s:
            raise IntentChanged("the files of the batch are too old")
        self._reached("open")
        table = self._archive.open()
        if self._archive.committed(table, shard.shard) != committed:
            raise IntentChanged("a worker treated the import as interrupted")
        self._require(table, shard, before)
        self._reached("commit")
        commits.commit(
            self._archive,
            table,
            written.files,
            shard.shard,
            intent.commit,
            self._now_ms(),
            Imported(self._name, after, written.ids, written.has_other_transports),
        )

    def _check_devices(self, shard: Shard, records: pa.Table) -> None:
        devices = records.column("device_id").unique().to_pylist()
        if shard.devices() + shard.strangers(devices) > self._max_devices:
            raise BusyError("cannot import: there would be more devices than collector.max_devices allows")

    def _write(self, shard: Shard, records: pa.Table) -> Written:
        self._reached("allot")
        since_s, bits, token = time.monotonic(), secrets.randbits(32), secrets.token_hex(16)
        deleted = deleted_devices(shard)
        first = allot(shard, records.num_rows, token)
        numbered = with_ids(records, first, shard.shards, self._now_ms())
        self._reached("write")
        self._archive.open()  # creates the folder
        files = self._archive.data_files.write(numbered, import_kind(bits))
        ids = range(first, first + records.num_rows * shard.shards, shard.shards)
        has_others = bool(pc.any(pc.not_equal(records.column("transport"), "import")).as_py())
        return Written(files, ids, bits, token, since_s, deleted, has_others)

    def _intend(self, shard: Shard, written: Written) -> tuple[Intent, str]:
        """The stored intent, and the commit number before it."""
        self._reached("intend")
        while True:
            committed = self._free(shard)
            intent = Intent(commit_number(committed, written.bits), [])
            if intend_allotted(shard, committed, intent.encode(), written.token):
                return intent, committed

    def _free(self, shard: Shard) -> str:
        """The shard's commit number once no save is running."""
        seen, since_s = None, time.monotonic()
        while (state := shard.state()).intent is not None:
            if state.intent != seen:
                seen, since_s = state.intent, time.monotonic()
            if time.monotonic() - since_s > LEFT_S:
                self._saver.save(shard)
            time.sleep(LOOK_S)
        if (why := apart(shard, self._archive)) is not None:
            raise NotTogether(f"cannot import: {why}; `whimbrel recover` lists the remedies")
        return state.committed

    def _finish(self, shard: Shard, intent: Intent, written: Written) -> None:
        """Update latest and finish the commit, unless a worker did so first."""
        self._reached("offer")
        files = [str(self._archive.root / file.path) for file in written.files]
        tell(shard, self._archive, self._connection, files, written.deleted)
        self._reached("finish")
        try:
            finish_chunk(shard, intent, 0)
        except IntentChanged as error:
            log.info("shard %d: %s", shard.shard, error)


def with_ids(records: pa.Table, first: int, step: int, now_ms: int) -> pa.Table:
    """Records as a table of `COLUMNS`: with ids from `first` on, and their time of arrival."""
    rows = records.num_rows
    columns = records.append_column("id", pa.array(range(first, first + rows * step, step), pa.int64()))
    arrival = pa.scalar(now_ms * 1_000, COLUMNS.field("received_at").type)
    return columns.append_column("received_at", pa.repeat(arrival, rows)).select(COLUMNS.names).cast(COLUMNS)
