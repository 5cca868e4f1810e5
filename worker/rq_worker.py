"""RQ's worker as the worker program runs it: one queue, our jobs, and deaf to all else that comes over Redis."""

from __future__ import annotations

from typing import Any

import redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from telemetry import meters
from telemetry.allowed import AllowedJob, short_name
from telemetry.jobs import persist_queue
from telemetry.watchdog import watchdog

LONGEST_WAIT_S = 5.0
"""Between two tries to reach a Redis that is away: RQ's own minute would be added to every long outage."""


LOOK_S = 15


class OwnWorker(SimpleWorker):
    """Takes no commands over a channel, and can't be suspended by a key: a signal stops it, and nothing else does."""

    def subscribe(self) -> None:
        """Listen to nobody."""

    def unsubscribe(self) -> None:
        """Nothing was subscribed to."""

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that it waits for a job before it looks up: a sign of life must come meanwhile."""
        return LOOK_S

    def heartbeat(self, *arguments: Any, **more: Any) -> None:
        """Say also to systemd that it works; a Redis that is away is no reason to be silent."""
        watchdog.beat()
        super().heartbeat(*arguments, **more)

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
    return worker


def count_failure(job: Job, *_error: object) -> bool:
    """Count a job that failed; True: RQ goes on as it would have."""
    meters.JOB_FAILURES.of(short_name(job.func_name)).add()
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
