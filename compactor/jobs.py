"""The background jobs of the archive as RQ calls them in a worker process: functions without arguments."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cached_property

import duckdb

from compactor.compaction import Compactor, Sweep
from compactor.plan import Limits
from telemetry.archive.operations import log_maintenance
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.archive.table_cache import TableCache
from telemetry.config.settings import Settings
from telemetry.coordination import job_queue
from telemetry.coordination.forward_progress import held_by
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import decode_intent
from telemetry.hot_store.operations import deletions
from telemetry.model.errors import NotTogether, PlanOutdated
from telemetry.observability import metrics
from telemetry.startup.store_setup import apart
from telemetry.system import clock
from telemetry.system.failpoints import step_reporter

log = logging.getLogger(__name__)

BUSY_S = 5.0
"""Maximum duration of a job while rewrites are due, s: saves wait for it."""


class Work:
    """Objects for the jobs of this process, created on first use."""

    def __init__(self, settings: Settings, cache: TableCache | None = None) -> None:
        self._settings = settings
        self._clock = clock.Steady()
        reached = step_reporter("compact")
        held = held_by(settings)
        self._archive = archive = Archive(settings.archive_dir, reached, held, cache)
        self._compactor = Compactor(archive, lambda: self._connection, clock.now_us, limits_of(settings), reached)
        self._sweep = Sweep(
            archive, self._intents, time.monotonic, settings.archive.grace_seconds, step_reporter("sweep"), held
        )

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return connection_of(self._settings, "compactor")

    def compact(self, monotonic: Callable[[], float] = time.monotonic) -> int:
        """Carry out rewrites until none is due or `BUSY_S` have passed. Returns their number."""
        stop_s, done = monotonic() + BUSY_S, 0
        while monotonic() < stop_s:
            try:
                begun_s = time.monotonic()
                if self._compactor.compact() is None:
                    break
                metrics.COMPACTION_S.one.observe(time.monotonic() - begun_s)
                done += 1
            except PlanOutdated as outdated:
                log.info("%s; looking again", outdated)
        return done

    def tidy(self) -> None:
        """Delete days beyond retention and unneeded files.

        A clock at 2038 before it is set would delete every day: days are deleted only if the clock was not set since
        the previous run.
        """
        try:
            with metrics.TIDY_S.one.timed():
                is_steady = self._clock.look()
                if is_steady:
                    stop_s = time.monotonic() + BUSY_S
                    self._compactor.retain(lambda: time.monotonic() > stop_s)
                self._sweep.sweep()
                if is_steady:
                    log_maintenance.forget_past(self._archive, time.time())
                self._rewrite_redis_log()
        except PlanOutdated as outdated:
            log.info("%s; the next run will do it", outdated)
        except NotTogether as error:
            log.warning("no file is deleted: %s", error)

    def _rewrite_redis_log(self) -> None:
        """Redis's append-only file must drop deleted devices, too."""
        with connect(self._settings) as client:
            deletions.rewrite_log(hot.attach(client, self._settings.redis.shards))

    def _intents(self) -> list[str]:
        """Commit numbers of the running saves. Raises `NotTogether`: a restored older log does not list newer files."""
        with connect(self._settings) as client:
            shards = hot.attach(client, self._settings.redis.shards)
            for shard in shards:
                if why := apart(shard, self._archive):
                    raise NotTogether(why)
            intents = [shard.state().intent for shard in shards]
        return [decode_intent(intent).commit for intent in intents if intent is not None]


def limits_of(settings: Settings) -> Limits:
    """The limits from the settings."""
    a = settings.archive
    return Limits(a.target_file_bytes, a.max_open_files, a.quiet_seconds, a.retention_days, a.retention_max_bytes)


def connection_of(settings: Settings, name: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB for merging; beyond its memory limit it spills to a folder of that name in the data folder."""
    return open_duckdb(settings.data_dir / "tmp" / name, f"{settings.archive.merge_memory_bytes}B")


_work: list[Work] = []


def compact() -> int:
    """Merge files that are due. RQ calls it by name (telemetry/coordination/job_queue.py)."""
    return _prepared().compact()


def tidy() -> None:
    """Retention and cleanup. RQ calls it by name."""
    _prepared().tidy()


def _prepared() -> Work:
    if not _work:
        _work.append(Work(job_queue.settings(), job_queue.cached_table()))
    return _work[0]
