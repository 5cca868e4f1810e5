"""Scheduler: a shard is due for a save at once when it reaches the flush limit, else some seconds after its first
record.

Time is the scheduler's own monotonic clock, never a record's: a box's wall clock may stop or jump.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from apscheduler.schedulers.blocking import BlockingScheduler
from redis import RedisError
from rq import Queue

from telemetry.coordination import job_queue, shared_state
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.shard import Flush, Shard, Waiting
from telemetry.model.errors import NotSetUp, StoreError
from telemetry.observability import metrics
from telemetry.system.systemd_notify import watchdog

log = logging.getLogger(__name__)

TICK_S = 1
ALIVE_TICKS = 10
"""Ticks between two heartbeats requested of the worker."""

COMPACT_TICKS = 60
"""Ticks between two compaction jobs. One also follows each save, which adds files."""

DELETE_TICKS = 5
"""Ticks between two jobs for a shard's deletions: one more than a job takes, to leave time for saves."""

TIDY_TICKS = 600
"""Ticks between two retention and cleanup jobs."""

MISFIRE_GRACE_S = 30
"""Maximum delay of a tick, s: APScheduler's default of 1 s skips ticks on a busy box."""


class Due:
    """Decides which shards to save, from their unsaved records at each tick."""

    def __init__(self, flush: Flush, flush_seconds: float) -> None:
        self._flush = flush
        self._flush_seconds = flush_seconds
        self._waiting_since_s: dict[int, float] = {}

    def is_due(self, shard: int, waiting: Waiting, now_s: float) -> bool:
        """Record the unsaved records at `now_s` (monotonic); True if the shard must be saved now."""
        if waiting.records == 0:
            self._waiting_since_s.pop(shard, None)
            return False
        since_s = self._waiting_since_s.setdefault(shard, now_s)
        if not self._flush.is_reached(waiting) and now_s - since_s < self._flush_seconds:
            return False
        self._waiting_since_s[shard] = now_s
        return True


class Clock:
    """Enqueues due jobs once per tick. It only enqueues: two schedulers do no harm."""

    def __init__(
        self,
        attach: Callable[[], Sequence[Shard]],
        queue: Queue,
        due: Due,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attach = attach
        self._queue = queue
        self._due = due
        self._monotonic = monotonic
        self._ticks = 0
        self._next_ticks: dict[str, int] = {}
        self._tidy_job = ""
        self._last_error = ""

    def tick(self) -> None:
        """Read every shard and enqueue the saves that are due."""
        watchdog.beat()
        try:
            self._enqueue()
            self._last_error = ""
        except (StoreError, RedisError) as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.warning("cannot schedule: %s", error)

    def _enqueue(self) -> None:
        self._ticks += 1
        name = time.time_ns()
        try:
            shards = self._attach()
        except NotSetUp:
            if self._queue.count == 0:
                job_queue.enqueue_alive(self._queue, name)  # the worker then detects an emptied Redis
            raise
        shared_state.write_heartbeat(shards[0].client, shared_state.SCHEDULER, time.time())
        waiting = self._queue.count
        metrics.JOBS_WAITING.one.set(waiting)
        metrics.JOBS_FAILED.one.set(self._queue.failed_job_registry.get_job_count(cleanup=False))
        has_backlog = waiting > 2 * len(shards) + 2
        if self._is_time("tidy", TIDY_TICKS):
            self._enqueue_tidy(name, has_backlog)
        if has_backlog:
            return  # the worker is down or busy, and has enough waiting jobs
        due = [shard for shard in shards if self._due.is_due(shard.shard, shard.waiting(), self._monotonic())]
        for shard in due:
            job_queue.enqueue_save(self._queue, shard.shard, name)
        for shard in shards:
            self._enqueue_deletions(shard, name)
        if self._is_time("compact", COMPACT_TICKS) or due:
            job_queue.enqueue_compact(self._queue, name)
        if self._is_time("alive", ALIVE_TICKS):
            job_queue.enqueue_alive(self._queue, name)

    def _is_time(self, kind: str, every: int) -> bool:
        """True if `every` ticks have passed since the last True; a missed tick remains due."""
        if self._ticks < self._next_ticks.get(kind, 0):
            return False
        self._next_ticks[kind] = self._ticks + every
        return True

    def _enqueue_tidy(self, name: int, has_backlog: bool) -> None:
        """Retention and cleanup free disk space: waiting jobs must not delay them. At most one waits at a time."""
        if self._tidy_job:
            self._queue.remove(self._tidy_job)
        self._tidy_job = job_queue.enqueue_tidy(self._queue, name, TIDY_TICKS * TICK_S, is_first=has_backlog)

    def _enqueue_deletions(self, shard: Shard, name: int) -> None:
        """Start a deletion at once, and continue it every few ticks."""
        kind = f"delete {shard.shard}"
        if deletions.count_pending(shard) == 0:
            self._next_ticks.pop(kind, None)
        elif self._is_time(kind, DELETE_TICKS):
            job_queue.enqueue_deletions(self._queue, shard.shard, name)


class _Steady(BlockingScheduler):  # type: ignore[misc]  # APScheduler has no types
    """Works whatever the box's clock does, which APScheduler uses to determine when a job is due.

    If the clock were set back, APScheduler would run no job until the old time; if it were set forward, it would first
    list every missed run, 1.7 billion of them on a box that booted in 1970.
    """

    def _process_jobs(self) -> float:
        now = datetime.now(UTC)
        for job in self.get_jobs():
            if not -MISFIRE_GRACE_S <= (job.next_run_time - now).total_seconds() <= 2 * TICK_S:
                job.modify(next_run_time=now)
        wait_s: float | None = super()._process_jobs()
        return TICK_S if wait_s is None else min(wait_s, TICK_S)


def scheduler(clock: Clock) -> BlockingScheduler:
    """The APScheduler that drives the clock."""
    result = _Steady(
        timezone="UTC", job_defaults={"misfire_grace_time": MISFIRE_GRACE_S, "coalesce": True, "max_instances": 1}
    )
    result.add_job(clock.tick, "interval", seconds=TICK_S, id="tick")
    return result
