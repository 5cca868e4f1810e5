"""The worker's jobs as RQ calls them: functions of plain values that use the objects set by `prepare`."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

import duckdb
import redis

from telemetry.archive.table import READ_ERRORS, Archive, in_one_line
from telemetry.coordination import shared_state
from telemetry.hot_store.operations.append import require_writable
from telemetry.hot_store.operations.latest_rebuild import must_rebuild
from telemetry.hot_store.operations.save import note_trouble
from telemetry.hot_store.shard import Flush, Shard
from telemetry.model.errors import BusyError, IntentChanged, NotTogether, OtherStoreError, WhimbrelError
from telemetry.observability import metrics
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from worker.device_erasure import Eraser
from worker.saving.latest_rebuild import rebuild
from worker.saving.saver import Saver

log = logging.getLogger(__name__)

DISK_ERRORS = (*READ_ERRORS, duckdb.Error)
"""Errors of a save if the disk is full or fails. Its files are ignored, and it is repeated."""

BUSY_S = 2.0
"""Maximum duration of a job for a shard that fills as fast as it is saved, s: a stop waits for it."""


class Work:
    """Objects that a worker process needs to save any shard."""

    def __init__(
        self,
        client: redis.Redis,
        archive: Archive,
        connection: duckdb.DuckDBPyConnection,
        saver: Saver,
        shards: int,
        flush: Flush,
        eraser: Eraser | None = None,
    ) -> None:
        self._client = client
        self._connection = connection
        self._archive = archive
        self._saver = saver
        self._eraser = eraser or Eraser(archive, lambda: connection, saver, clock.now_ms)
        self._shards = shards
        self._flush = flush
        self.stores: list[Shard] = []
        for counted in (metrics.SAVE_S, metrics.SAVED, metrics.SAVE_FAILURES, metrics.DELETIONS):
            _ = counted.one  # so that they are reported from the start

    def save_shard(self, number: int, monotonic: Callable[[], float] = time.monotonic) -> int:
        """Save a shard until fewer records than a flush are unsaved and no save left anything out. Returns the number
        of saved records.
        """
        stop, saved = monotonic() + BUSY_S, 0
        while True:
            taken = self._save_once(number)
            saved += taken
            self.say_alive()
            if taken == 0 or not self._has_more(self.stores[number]) or monotonic() > stop:
                return saved

    def _has_more(self, store: Shard) -> bool:
        return self._saver.is_behind(store) or self._flush.is_reached(store.waiting())

    def _save_once(self, number: int) -> int:
        for _ in range(3):
            begun_s = time.monotonic()
            try:
                saved = self._saver.save(self.stores[number])
                if saved:
                    metrics.SAVE_S.one.observe(time.monotonic() - begun_s)
                    metrics.SAVED.one.add(saved)
                return saved
            except IntentChanged as error:
                log.info("shard %d: %s; looking again", number, error)
            except DISK_ERRORS as error:
                why = in_one_line(error)
                log.error("shard %d: cannot save, its records wait in Redis: %s", number, why)
                metrics.SAVE_FAILURES.one.add()
                note_trouble(self.stores[number], why)
                return 0
            except NotTogether as error:
                metrics.SAVE_FAILURES.one.add()
                log.error("shard %d: nothing is saved: %s", number, error)
                return 0
            except OtherStoreError:
                self._begin_anew()
        return 0

    def delete_devices(self, number: int) -> int:
        """Continue the deletions of a shard. Returns the number completed."""
        try:
            done = self._eraser.erase(self.stores[number])
        except OtherStoreError:
            self._begin_anew()
            return 0
        self.say_alive()
        return done

    def look(self) -> None:
        """Check that the store is the one of this worker, and write a heartbeat."""
        try:
            for store in self.stores:
                store.state()
                with contextlib.suppress(BusyError):
                    require_writable(store)  # also loads the functions, as only the worker may
        except OtherStoreError:
            self._begin_anew()
        self.say_alive()

    def say_alive(self) -> None:
        """Write a heartbeat of this worker."""
        shared_state.write_heartbeat(self._client, shared_state.WORKER, time.time())

    def _begin_anew(self) -> None:
        log.warning("Redis was emptied or replaced: reading the store again")
        self.begin()

    def begin(self) -> None:
        """Set the store up, and finish interrupted saves, before any job runs."""
        self.stores = set_up(self._client, self._archive, self._shards)
        for store in self.stores:
            if store.state().intent is not None:
                log.info("shard %d: finishing an interrupted save", store.shard)
                self._save_once(store.shard)
            if must_rebuild(store):
                devices = rebuild(store, self._archive, self._connection)
                log.info("shard %d: read the latest of %d devices from the archive", store.shard, devices)


_work: list[Work] = []


def prepare(work: Work) -> None:
    """Set the objects used by the jobs of this process."""
    _work[:] = [work]


def save_shard(number: int) -> int:
    """Save one shard. RQ calls it by name (telemetry/coordination/job_queue.py)."""
    return _prepared().save_shard(number)


def delete_devices(number: int) -> int:
    """Continue deletions. RQ calls it by name."""
    return _prepared().delete_devices(number)


def say_alive() -> None:
    """Write a heartbeat. RQ calls it by name."""
    _prepared().look()


def _prepared() -> Work:
    if not _work:
        raise WhimbrelError("this process is not a worker")
    return _work[0]
