"""RQ worker that processes one queue and ignores RQ's pub/sub commands."""

from __future__ import annotations

import time

import redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from telemetry.coordination.job_allowlist import ALLOWED, AllowedJob, short_name
from telemetry.coordination.job_queue import persist_queue
from telemetry.observability import metrics
from telemetry.system.systemd_notify import watchdog

LONGEST_WAIT_S = 5.0
"""Maximum pause between attempts to reach Redis, s; RQ's default of a minute would prolong each long outage."""


LOOK_S = 15

HEARTBEAT_S = 5.0
"""Interval of heartbeats, in addition to the heartbeats of each job, s."""


class OwnWorker(SimpleWorker):
    """Accepts no commands over a channel and cannot be suspended by a key; only signals stop it.

    It writes less than RQ's worker, in fewer calls: each separate write waits for the disk, and so does Redis.
    """

    _said_s = -HEARTBEAT_S

    def subscribe(self) -> None:
        """Subscribe to nothing."""

    def unsubscribe(self) -> None:
        """Nothing was subscribed."""

    @property
    def dequeue_timeout(self) -> int:
        """Seconds to wait for a job: a heartbeat is due afterwards."""
        return LOOK_S

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send a keep-alive to systemd, too, even while Redis is unreachable."""
        watchdog.beat()
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        elif time.monotonic() - self._said_s >= HEARTBEAT_S:
            with self.connection.pipeline() as together:
                super().heartbeat(timeout, together)
                together.execute()
            self._said_s = time.monotonic()

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Write a state unless it is unchanged."""
        if pipeline is not None or state != self.get_state():
            super().set_state(state, pipeline)

    def check_for_suspension(self, burst: bool) -> None:
        """Never suspend."""


def rq_worker(client: redis.Redis) -> OwnWorker:
    """A worker of the only queue; drops unfinished jobs of earlier workers."""
    queue = persist_queue(client)
    forget(queue)
    worker = OwnWorker(
        [queue],
        connection=client,
        serializer=JSONSerializer,
        job_class=AllowedJob,
        exception_handlers=[count_failure],
    )
    worker.max_connection_wait_time = LONGEST_WAIT_S
    for function in (*ALLOWED, None):
        metrics.JOB_FAILURES.of(short_name(function))
    return worker


def count_failure(job: Job, *_error: object) -> bool:
    """Count a failed job. Returns True: RQ continues with its own handling."""
    metrics.JOB_FAILURES.of(short_name(job.func_name)).add()
    return True


def forget(queue: Queue) -> None:
    """Drop RQ's records of started, failed or deferred jobs: they were hints, and the scheduler enqueues new ones.

    RQ reads these lists periodically; an entry that it cannot read would end every worker.
    """
    registries = (
        queue.started_job_registry,
        queue.failed_job_registry,
        queue.finished_job_registry,
        queue.deferred_job_registry,
        queue.scheduled_job_registry,
        queue.canceled_job_registry,
    )
    queue.connection.delete(queue.intermediate_queue_key, *(registry.key for registry in registries))
