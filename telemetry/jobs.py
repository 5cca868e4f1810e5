"""The background jobs by name, and RQ set up so that it runs these and nothing else.

Jobs are hints, never the truth: RQ may lose, delay or double one, and correctness never depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from telemetry.config import Settings
from telemetry.errors import WhimbrelError

SAVE_SHARD = "worker.jobs.save_shard"
SAY_ALIVE = "worker.jobs.say_alive"
COMPACT = "compactor.jobs.compact"
TIDY = "compactor.jobs.tidy"
ALLOWED = frozenset({SAVE_SHARD, SAY_ALIVE, COMPACT, TIDY})

PERSIST_QUEUE = "whimbrel-persist"
JOB_TIMEOUT_S = 120
WAITING_TTL_S = 60
"""A job that nobody took for so long is dropped: the clock has enqueued newer ones."""


class AllowedJob(Job):
    """A job that runs only the functions in `ALLOWED`: a JSON payload alone could still name `os.system`."""

    @property
    def func(self) -> Callable[..., Any]:
        """The function to run. Raises `PermissionError` if it isn't one of ours."""
        if self.func_name not in ALLOWED or self.instance is not None:
            raise PermissionError(f"{self.func_name} is not one of Whimbrel's jobs")
        callbacks = (self._success_callback_name, self._failure_callback_name, self._stopped_callback_name)
        if any(callbacks):
            raise PermissionError("Whimbrel's jobs have no callbacks")
        return super().func  # type: ignore[no-any-return]

    @property
    def success_callback(self) -> None:
        """None: a callback is a name too, which RQ would import and call."""

    @property
    def failure_callback(self) -> None:
        """None: RQ would call it even for a job that was refused."""

    @property
    def stopped_callback(self) -> None:
        """None."""


_settings: list[Settings] = []


def prepare(settings: Settings) -> None:
    """Set the settings of the jobs of this process."""
    _settings[:] = [settings]


def settings() -> Settings:
    """The settings of the jobs of this process."""
    if not _settings:
        raise WhimbrelError("this process is not a worker")
    return _settings[0]


def persist_queue(client: redis.Redis) -> Queue:
    """The queue of saves."""
    return Queue(PERSIST_QUEUE, connection=client, serializer=JSONSerializer, job_class=AllowedJob)


def enqueue(queue: Queue, function: str, args: tuple[int, ...], job_id: str) -> None:
    """Ask for a job. `job_id` must be one that no other job has had lately."""
    queue.enqueue_call(
        function, args=args, job_id=job_id, timeout=JOB_TIMEOUT_S, ttl=WAITING_TTL_S, result_ttl=0, failure_ttl=60
    )


def enqueue_save(queue: Queue, shard: int, tick: int) -> None:
    """Ask for a shard to be saved. `tick` makes the job's id one of its own."""
    enqueue(queue, SAVE_SHARD, (shard,), f"persist-{shard}-{tick}")


def enqueue_compact(queue: Queue, tick: int) -> None:
    """Ask for files to be merged where they are too many."""
    enqueue(queue, COMPACT, (), f"compact-{tick}")


def enqueue_tidy(queue: Queue, tick: int) -> None:
    """Ask for retention and sweep."""
    enqueue(queue, TIDY, (), f"tidy-{tick}")


def enqueue_alive(queue: Queue, tick: int) -> None:
    """Ask the worker for a sign of life, which proves the whole way through RQ."""
    enqueue(queue, SAY_ALIVE, (), f"alive-{tick}")
