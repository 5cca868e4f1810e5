"""Enqueues background jobs; job_allowlist.py lists them.

Jobs are only hints: RQ may lose, delay or repeat one, and correctness never depends on it.
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
    from telemetry.archive.table_cache import TableCache  # loads deltalake and Arrow, which the scheduler does not need

WAITING_TTL_S = 60
"""Time after which a waiting job is dropped; the scheduler has enqueued newer ones by then."""

_settings: list[Settings] = []
_opened: list[TableCache] = []


def prepare(settings: Settings, cached_table: TableCache | None = None) -> None:
    """Set the settings and the table cache for the jobs of this process."""
    _settings[:] = [settings]
    _opened[:] = [cached_table] if cached_table is not None else []


def settings() -> Settings:
    """The settings of the jobs of this process."""
    if not _settings:
        raise WhimbrelError("this process is not a worker")
    return _settings[0]


def cached_table() -> TableCache | None:
    """The cached table of the archive. The jobs of this process run one after the other and share it."""
    return _opened[0] if _opened else None


def persist_queue(client: redis.Redis) -> Queue:
    """The queue of all background jobs."""
    return Queue(QUEUE, connection=client, serializer=JSONSerializer, job_class=AllowedJob)


def enqueue(
    queue: Queue,
    function: str,
    args: tuple[int, ...],
    job_id: str,
    ttl_s: int = WAITING_TTL_S,
    is_first: bool = False,
) -> None:
    """Enqueue a job. `job_id` must be unique for some time. `is_first`: ahead of all waiting jobs."""
    with queue.connection.pipeline() as together:  # RQ's own method waits for two fsyncs
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
    """Enqueue a save of a shard. `tick` makes the job's id unique."""
    enqueue(queue, SAVE_SHARD, (shard,), f"persist-{shard}-{tick}")


def enqueue_deletions(queue: Queue, shard: int, tick: int) -> None:
    """Enqueue the next step of a shard's device deletions."""
    enqueue(queue, DELETE_DEVICES, (shard,), f"delete-{shard}-{tick}")


def enqueue_compact(queue: Queue, tick: int) -> None:
    """Enqueue compaction."""
    enqueue(queue, COMPACT, (), f"compact-{tick}")


def enqueue_tidy(queue: Queue, tick: int, ttl_s: int = WAITING_TTL_S, is_first: bool = False) -> str:
    """Enqueue retention and cleanup of old files. Returns the job's id."""
    job_id = f"tidy-{tick}"
    enqueue(queue, TIDY, (), job_id, ttl_s, is_first)
    return job_id


def enqueue_alive(queue: Queue, tick: int) -> None:
    """Enqueue a heartbeat of the worker, which tests the whole path through RQ."""
    enqueue(queue, SAY_ALIVE, (), f"alive-{tick}")
