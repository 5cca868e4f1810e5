"""RQ's worker as the worker program runs it: one queue, our jobs, and deaf to all else that comes over Redis."""

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
"""Between two tries to reach a Redis that is away: RQ's own minute would be added to every long outage."""


LOOK_S = 15

HEARTBEAT_S = 5.0
"""How often it says that it lives, beside what each job says of it."""


class OwnWorker(SimpleWorker):
    """Takes no commands over a channel, and can't be suspended by a key: a signal stops it, and nothing else does.

    It notes less than RQ's, and together: each note for itself waits for the disk, and Redis with it, 15 times a job.
    """

    _said_s = -HEARTBEAT_S

    def subscribe(self) -> None:
        """Listen to nobody."""

    def unsubscribe(self) -> None:
        """Nothing was subscribed to."""

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that it waits for a job before it looks up: a sign of life must come meanwhile."""
        return LOOK_S

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Say also to systemd that it works; a Redis that is away is no reason to be silent."""
        watchdog.beat()
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        elif time.monotonic() - self._said_s >= HEARTBEAT_S:
            with self.connection.pipeline() as together:
                super().heartbeat(timeout, together)
                together.execute()
            self._said_s = time.monotonic()

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Note a state, unless it is the one that is noted."""
        if pipeline is not None or state != self.get_state():
            super().set_state(state, pipeline)

    def check_for_suspension(self, burst: bool) -> None:
        """Go on."""


def rq_worker(client: redis.Redis) -> OwnWorker:
    """A worker of the only queue, which forgets what earlier ones left half done."""
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
    """Count a job that failed; True: RQ goes on as it would have."""
    metrics.JOB_FAILURES.of(short_name(job.func_name)).add()
    return True


def forget(queue: Queue) -> None:
    """Drop what RQ keeps of jobs that were begun, failed or put off: they were hints, and the clock gives new ones.

    RQ reads these lists again and again; an entry that it can't read would end every worker anew.
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
