"""Undo of an import: deletes exactly its records from the archive, and rebuilds the affected `latest` entries.

The table has the ids of an import's records (table.py), and no other record ever gets one of them. All steps can be
repeated at any time, also concurrently:

    fence       record in the table, for each shard, that the import is undone: later commits of its batches fail, and
                its file may be imported again, as a new import
    settle      wait until the running commit, which may be the import's, has ended
    look        find files that may have such records, by their bounds in the log
    write       rewrite files of a day without them
    commit      replace the old files, unless another program changed that day's files meanwhile: look again
    note        make programs that searched files for records, to offer them to `latest`, search again
    latest      rebuild each device's latest that shows such a record from its other records, in Redis and archive
    end         record in the table that all records are deleted
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import duckdb
from deltalake import DeltaTable

from telemetry.archive.data_files import LiveFile
from telemetry.archive.operations import commits, erasures, import_progress
from telemetry.archive.operations.import_progress import UNDONE_ROWS, Progress
from telemetry.archive.schema import has_id_sql, seen_sql
from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import Slot, decode_intent, decode_latest, read_entry
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.latest_rebuild import last_entry, note_erased, replace_latest
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, IntentChanged, NotTogether, PlanOutdated, StoreError
from telemetry.startup.store_setup import apart
from telemetry.system.failpoints import Step, no_step_reporter
from worker.device_erasure import portions, rewritten
from worker.saving.latest_rebuild import found_in, found_of
from worker.saving.saver import Saver

log = logging.getLogger(__name__)

BEGUN, ENDED = Progress(UNDONE_ROWS), Progress(UNDONE_ROWS, is_whole=True)

TRIES = 20
WAIT_S = 0.05
LEFT_S = 30.0
"""Age of an intent after which its save counts as interrupted without a worker; the undo then finishes it, s."""

DEVICES_AT_ONCE = 200


class Undone(NamedTuple):
    """Result of an undo: numbers of deleted records, of their files, and of devices whose latest has changed."""

    records: int
    files: int
    devices: int


class Undoer:
    """Undoes imports. `reached` is called with the name of each step before it, `advance` with the number of searched
    files and their total.
    """

    def __init__(
        self,
        archive: Archive,
        shards: Sequence[Shard],
        connection: duckdb.DuckDBPyConnection,
        saver: Saver,
        now_ms: Callable[[], int],
        reached: Step = no_step_reporter,
        advance: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._archive, self._shards, self._connection, self._saver = archive, shards, connection, saver
        self._now_ms, self._reached, self._advance = now_ms, reached, advance

    def undo(self, name: str) -> Undone:
        """Undo an import. Synced on return.

        Raises `NotTogether`, `BusyError`, `StoreError` if the ids of its records are unknown, and disk errors.
        """
        self._reached("fence")
        for shard in self._shards:
            if (why := apart(shard, self._archive)) is not None:
                raise NotTogether(f"cannot undo an import: {why}; `whimbrel recover` lists the remedies")
            self._note(name, shard, BEGUN)
        self._reached("settle")
        for shard in self._shards:
            self._settle(shard)
        ids = {shard.shard: self._ids(name, shard) for shard in self._shards}  # after the last batch
        records, files = self._erase(name, [one for ranges in ids.values() for one in ranges])
        self._reached("note")
        for shard in self._shards:
            note_erased(shard)
        self._reached("latest")
        devices = sum(self._mend_latest(shard, ids[shard.shard]) for shard in self._shards)
        self._reached("end")
        for shard in self._shards:
            self._note(name, shard, ENDED)
        return Undone(records, files, devices)

    def _ids(self, name: str, shard: Shard) -> list[range]:
        ids = import_progress.imported_ids(self._archive.open(), name, shard.shard, shard.shards)
        if ids is None:
            raise StoreError(
                "cannot undo the import: it was begun by a release that did not record the ids of its records"
            )
        return ids

    def _note(self, name: str, shard: Shard, progress: Progress) -> None:
        for attempt in range(TRIES):
            table = self._archive.open()
            known = import_progress.progress(table, name, shard.shard) or Progress()
            if known.version >= progress.version:
                return
            if known.rows:
                self._ids(name, shard)
            try:
                commits.note_progress(self._archive, table, name, shard.shard, progress)
                return
            except IntentChanged as error:
                log.info("shard %d: %s; trying again", shard.shard, error)
                time.sleep(WAIT_S * attempt)
        raise BusyError("cannot undo the import: its next batches keep interfering")

    def _settle(self, shard: Shard) -> None:
        """Wait until the current intent has ended, or finish it if no other process does."""
        intent, since_s = shard.state().intent, time.monotonic()
        while intent is not None and shard.state().intent == intent:
            is_committed = decode_intent(intent).commit == self._archive.committed(self._archive.open(), shard.shard)
            if is_committed or time.monotonic() - since_s > LEFT_S:
                with contextlib.suppress(IntentChanged):  # a worker was faster
                    self._saver.save(shard)
            time.sleep(WAIT_S)

    # The archive --------------------------------------------------------------------------------------

    def _erase(self, name: str, ids: Sequence[range]) -> tuple[int, int]:
        """Delete the records from the archive. Returns their number, and the number of files that had them."""
        clean = set[str]()
        records = files = 0
        while True:
            self._reached("look")
            table = self._archive.open()
            left = [one for one in self._archive.live(table) if one.path not in clean and one.ids_among(ids)]
            if not left:
                return records, files
            left.sort(key=lambda file: (file.day, file.path))
            parts = [part for _, day in groupby(left, lambda file: file.day) for part in portions(list(day))]
            try:
                for part in parts:
                    removed, old = self._erase_some(name, table, part, ids)
                    clean.update(file.path for file in part)
                    records, files = records + removed, files + old
                    self._advance(len(clean), len(clean) + len([one for one in left if one.path not in clean]))
                    if removed:  # the table has a new version
                        break
            except (PlanOutdated, FileNotFoundError, duckdb.IOException) as error:
                log.info("undo of %s: %s; looking again", name, error)
                time.sleep(WAIT_S)

    def _erase_some(
        self, name: str, table: DeltaTable, part: Sequence[LiveFile], ids: Sequence[range]
    ) -> tuple[int, int]:
        data_files, condition = self._archive.data_files, condition_of(part, ids)
        held = {file: data_files.count(self._connection, file, condition) for file in part}
        old = {file: records for file, records in held.items() if records}
        if not old:
            return 0, 0
        self._reached("write")
        new = rewritten(data_files, self._connection, condition, old)
        self._reached("commit")
        erasures.erase(self._archive, table, list(old), new, self._now_ms(), f"undo-{name}", sum(old.values()))
        return sum(old.values()), len(old)

    # Latest -------------------------------------------------------------------------------------------

    def _mend_latest(self, shard: Shard, ids: Sequence[range]) -> int:
        """Rebuild each latest that shows a record with one of these ids. Returns their number."""
        mended = 0
        for _ in range(TRIES):
            devices = self._showing(shard, ids)
            for at in range(0, len(devices), DEVICES_AT_ONCE):
                mended += self._make_anew(shard, devices[at : at + DEVICES_AT_ONCE])
            if not devices:
                return mended
        raise BusyError("cannot rebuild latest: its devices send faster than their records can be searched")

    @staticmethod
    def _showing(shard: Shard, ids: Sequence[range]) -> list[bytes]:
        if not ids:
            return []
        return [device for page in shard.all_latest() for device, latest in page.items() if shows(latest, ids)]

    def _make_anew(self, shard: Shard, devices: Sequence[bytes]) -> int:
        """Read Redis first: records saved meanwhile are then in the archive. Repeat if new ones arrive."""
        names = [device.decode() for device in devices]
        last = [last_entry(shard, name) for name in names]
        seen = shard.latest(devices)
        entries = shard.entries([(name, "-", "+") for name in names])
        table = self._archive.open()
        files = self._archive.files(table)
        imported = import_progress.imported_otherwise(table, shard.shard, shard.shards)
        archived = found_of(self._connection, files, names, seen_sql(imported))
        gone = {mark.device_id: mark.before_id for mark in deletions.pending(shard)}
        mended = 0
        for name, entry, latest, raw in zip(names, last, seen, entries, strict=True):
            waiting = found_in(one for each in raw for one in read_entry(name, each, shard.shards))
            every = [one for one in archived.get(name, []) if one.stored.id >= gone.get(name, 0)]
            found = sorted([*every, *waiting], key=lambda one: one.stored.id)
            if latest is not None:
                mended += replace_latest(shard, name, latest, entry, found)
        return mended


def condition_of(files: Sequence[LiveFile], ids: Sequence[range]) -> str:
    """SQL condition of the records of some files with one of these ids."""
    return " OR ".join(map(has_id_sql, dict.fromkeys(one for file in files for one in file.ids_among(ids))))


def shows(latest: bytes, ids: Sequence[range]) -> bool:
    """True if an encoded latest shows a record with one of these ids."""
    decoded = decode_latest(latest)
    slots = [slot for slot in (decoded.http, decoded.other, decoded.fix) if isinstance(slot, Slot)]
    return any(slot.id in one for slot in slots for one in ids)
