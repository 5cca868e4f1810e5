"""When a shard is due for a save: at once when it holds a flush, else some seconds after it got its first record.

The time is the scheduler's own monotonic clock, never a record's: a box's wall clock may stick or jump.
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
"""Ticks between two signs of life that are asked of the worker."""

COMPACT_TICKS = 60
"""Ticks between two looks for files to merge. There is one behind each save, too, which made the files more."""

DELETE_TICKS = 5
"""Ticks between two jobs that go on with a shard's deletions: one more than such a job takes, for saves."""

TIDY_TICKS = 600
"""Ticks between two retentions and sweeps."""

MISFIRE_GRACE_S = 30
"""How late a tick may run: APScheduler's own second skips ticks on a busy box."""


class Due:
    """Tells which shards to save, from what waits in each at each tick."""

    def __init__(self, flush: Flush, flush_seconds: float) -> None:
        self._flush = flush
        self._flush_seconds = flush_seconds
        self._waiting_since_s: dict[int, float] = {}

    def is_due(self, shard: int, waiting: Waiting, now_s: float) -> bool:
        """Note what a shard holds at `now_s` (monotonic); True if it is to be saved now."""
        if waiting.records == 0:
            self._waiting_since_s.pop(shard, None)
            return False
        since_s = self._waiting_since_s.setdefault(shard, now_s)
        if not self._flush.is_reached(waiting) and now_s - since_s < self._flush_seconds:
            return False
        self._waiting_since_s[shard] = now_s
        return True


class Clock:
    """Enqueues what is due, once a tick. It only enqueues: two such clocks do no harm."""

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
        self._said = ""

    def tick(self) -> None:
        """Look at every shard and enqueue the saves that are due."""
        watchdog.beat()
        try:
            self._enqueue()
            self._said = ""
        except (StoreError, RedisError) as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("nothing is scheduled: %s", error)

    def _enqueue(self) -> None:
        self._ticks += 1
        name = time.time_ns()
        try:
            shards = self._attach()
        except NotSetUp:
            if self._queue.count == 0:
                job_queue.enqueue_alive(self._queue, name)  # the worker sees then that Redis was emptied
            raise
        shared_state.write_heartbeat(shards[0].client, shared_state.SCHEDULER, time.time())
        waiting = self._queue.count
        metrics.JOBS_WAITING.one.set(waiting)
        metrics.JOBS_FAILED.one.set(self._queue.failed_job_registry.get_job_count(cleanup=False))
        has_backlog = waiting > 2 * len(shards) + 2
        if self._is_time("tidy", TIDY_TICKS):
            self._enqueue_tidy(name, has_backlog)
        if has_backlog:
            return  # the worker is away or busy, and what waits for it is enough
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
        """Whether `every` ticks have passed since this was last true; at a tick without it, it stays due."""
        if self._ticks < self._next_ticks.get(kind, 0):
            return False
        self._next_ticks[kind] = self._ticks + every
        return True

    def _enqueue_tidy(self, name: int, has_backlog: bool) -> None:
        """Retention and sweep free the disk: jobs that wait do not delay them. One such job waits at a time."""
        if self._tidy_job:
            self._queue.remove(self._tidy_job)
        self._tidy_job = job_queue.enqueue_tidy(self._queue, name, TIDY_TICKS * TICK_S, is_first=has_backlog)

    def _enqueue_deletions(self, shard: Shard, name: int) -> None:
        """A deletion is begun at once, and gone on with every few ticks."""
        kind = f"delete {shard.shard}"
        if deletions.count_pending(shard) == 0:
            self._next_ticks.pop(kind, None)
        elif self._is_time(kind, DELETE_TICKS):
            job_queue.enqueue_deletions(self._queue, shard.shard, name)


class _Steady(BlockingScheduler):  # type: ignore[misc]  # APScheduler has no types
    """Goes on whatever the box's clock does, by which alone APScheduler knows when a job is due.

    Were the clock set back, it would run none until the old time comes again; were it set forward, it would first
    list every turn that was missed, 1.7 billion of them on a box that booted in 1970.
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
    found = _Steady(
        timezone="UTC", job_defaults={"misfire_grace_time": MISFIRE_GRACE_S, "coalesce": True, "max_instances": 1}
    )
    found.add_job(clock.tick, "interval", seconds=TICK_S, id="tick")
    return found
