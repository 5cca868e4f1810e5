"""How the background jobs are asked for; job_allowlist.py says which there are.

Jobs are hints, never the truth: RQ may lose, delay or double one, and correctness never depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from telemetry.config.settings import Settings
from telemetry.coordination.job_allowlist import (
    COMPACT,
    DELETE_DEVICES,
    JOB_TIMEOUT_S,
    QUEUE,
    SAVE_SHARD,
    SAY_ALIVE,
    TIDY,
    AllowedJob,
)
from telemetry.model.errors import WhimbrelError

if TYPE_CHECKING:
    from telemetry.archive.table_cache import Opened  # which loads deltalake, and Arrow: the scheduler needs neither

WAITING_TTL_S = 60
"""A job that nobody took for so long is dropped: the clock has enqueued newer ones."""

_settings: list[Settings] = []
_opened: list[Opened] = []


def prepare(settings: Settings, opened: Opened | None = None) -> None:
    """Set the settings of the jobs of this process, and where they find the archive's table as it was opened last."""
    _settings[:] = [settings]
    _opened[:] = [opened] if opened is not None else []


def settings() -> Settings:
    """The settings of the jobs of this process."""
    if not _settings:
        raise WhimbrelError("this process is not a worker")
    return _settings[0]


def opened() -> Opened | None:
    """The archive's table as jobs of this process, which run one after the other, opened it last."""
    return _opened[0] if _opened else None


def persist_queue(client: redis.Redis) -> Queue:
    """The queue of saves."""
    return Queue(QUEUE, connection=client, serializer=JSONSerializer, job_class=AllowedJob)


def enqueue(
    queue: Queue,
    function: str,
    args: tuple[int, ...],
    job_id: str,
    ttl_s: int = WAITING_TTL_S,
    is_first: bool = False,
) -> None:
    """Ask for a job. `job_id` must be one that no other job has had lately. `is_first`: before all that wait."""
    with queue.connection.pipeline() as together:  # RQ's own way waits for the disk twice
        queue.enqueue_call(
            function,
            args=args,
            job_id=job_id,
            timeout=JOB_TIMEOUT_S,
            ttl=ttl_s,
            result_ttl=0,
            failure_ttl=60,
            at_front=is_first,
            pipeline=together,
        )
        together.execute()


def enqueue_save(queue: Queue, shard: int, tick: int) -> None:
    """Ask for a shard to be saved. `tick` makes the job's id one of its own."""
    enqueue(queue, SAVE_SHARD, (shard,), f"persist-{shard}-{tick}")


def enqueue_deletions(queue: Queue, shard: int, tick: int) -> None:
    """Ask for the deletions of a shard's devices to go on."""
    enqueue(queue, DELETE_DEVICES, (shard,), f"delete-{shard}-{tick}")


def enqueue_compact(queue: Queue, tick: int) -> None:
    """Ask for files to be merged where they are too many."""
    enqueue(queue, COMPACT, (), f"compact-{tick}")


def enqueue_tidy(queue: Queue, tick: int, ttl_s: int = WAITING_TTL_S, is_first: bool = False) -> str:
    """Ask for retention and sweep. Returns the job's id."""
    job_id = f"tidy-{tick}"
    enqueue(queue, TIDY, (), job_id, ttl_s, is_first)
    return job_id


def enqueue_alive(queue: Queue, tick: int) -> None:
    """Ask the worker for a sign of life, which proves the whole way through RQ."""
    enqueue(queue, SAY_ALIVE, (), f"alive-{tick}")
