"""Which jobs are run: those that Whimbrel's own programs write, field for field, and nothing else.

Whoever may write into RQ's keys could else name any function of Python (`os.system`), give a job callbacks, which RQ
imports and calls even where the job fails, webhooks, which it posts to any URL, retries, dependents, a pickle, or a
payload that inflates without end. So a job's hash is looked at before RQ reads it. One that is not ours is deleted,
counted and named in the log; for RQ there was no such job.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import msgspec
import redis
from rq.exceptions import NoSuchJobError
from rq.job import Job

from telemetry.coordination import rejection_counts, shared_state
from telemetry.model.errors import BusyError, StoreError

log = logging.getLogger(__name__)

SAVE_SHARD = "worker.jobs.save_shard"
SAY_ALIVE = "worker.jobs.say_alive"
DELETE_DEVICES = "worker.jobs.delete_devices"
COMPACT = "compactor.jobs.compact"
TIDY = "compactor.jobs.tidy"
ALLOWED = {SAVE_SHARD: 1, SAY_ALIVE: 0, DELETE_DEVICES: 1, COMPACT: 0, TIDY: 0}
"""Functions that a job may name, and how many integers each takes."""

QUEUE = "whimbrel-persist"
JOB_TIMEOUT_S = 120
MAX_DATA_BYTES = 512
MAX_FIELD_BYTES = 2_048
"""Of a payload, inflated, and of any other field: ours are a tenth as long. A refused value is shown far shorter."""

FIELDS = frozenset(
    [
        "status",
        "created_at",
        "enqueued_at",
        "started_at",
        "ended_at",
        "last_heartbeat",
        "worker_name",
        "origin",
        "description",
        "data",
        "timeout",
        "ttl",
        "result_ttl",
        "failure_ttl",
        "exc_info",
    ]
)
"""What a job's hash may hold. Callbacks, webhooks, retries, repeats, dependencies, groups, limits are RQ's others."""


def short_name(function: str | None) -> str:
    """What a job is called where few names may be: that of its function, or "other"."""
    return function.rpartition(".")[2] if function in ALLOWED else "other"


class RefusedJob(NoSuchJobError):
    """A job that is not one of ours. RQ goes on as if it had none of that id."""


class AllowedJob(Job):
    """A job that is one of `ALLOWED`, with nothing beside. Raises `RefusedJob` as soon as RQ reads another."""

    @classmethod
    def fetch(cls, id: str, connection: redis.Redis | None = None, serializer: Any = None) -> Job:  # noqa: A002
        """The job of that id. Raises `NoSuchJobError`, also for an id that can't be one."""
        try:
            return super().fetch(id, connection, serializer)
        except ValueError as error:
            _refuse(connection, id, str(error))

    def refresh(self) -> None:
        """Read it from Redis, if it is one of ours."""
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            _refuse(self.connection, self.id, str(error))

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Take the fields of a job's hash, if they are one of ours."""
        if b"data" not in raw_data:
            raise NoSuchJobError(f"{self.id} has no payload: it expired meanwhile")
        try:
            super().restore(_checked(raw_data))
        except (ValueError, TypeError) as error:
            _refuse(self.connection, self.id, str(error))

    @property
    def func(self) -> Callable[..., Any]:
        """The function to run. Raises `PermissionError` if it isn't one of ours, however the job came to be."""
        if self.func_name not in ALLOWED or self.instance is not None:
            raise PermissionError(f"{self.func_name} is not one of Whimbrel's jobs")
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

    def send_webhooks(self, *_what: object, **_more: object) -> None:
        """Post nothing to anybody."""


def _checked(raw: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The fields as RQ may read them. Raises `ValueError` saying what is not as ours write it."""
    found = {name: value for name, value in raw.items() if value}
    for name, value in found.items():
        if name.decode() not in FIELDS:
            raise ValueError(f"it has {_shown(name)}, which Whimbrel's jobs have not")
        if len(value) > MAX_FIELD_BYTES and name != b"exc_info":
            raise ValueError(f"its {name.decode()} has {len(value)} bytes")
    found.pop(b"exc_info", None)  # nobody reads it, and it is compressed
    if found.get(b"origin") != QUEUE.encode():
        raise ValueError(f"its origin is {_shown(found.get(b'origin', b''))}")
    if not 0 < int(found.get(b"timeout", b"0")) <= JOB_TIMEOUT_S:
        raise ValueError(f"its timeout is {_shown(found.get(b'timeout', b''))}")
    found[b"data"] = _inflated(found[b"data"])
    _check_call(found[b"data"])
    return found


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        plain = inflating.decompress(data, MAX_DATA_BYTES)
    except zlib.error:
        raise ValueError("its payload is not compressed") from None
    if not inflating.eof or inflating.unused_data:
        raise ValueError(f"its payload has more than {MAX_DATA_BYTES} bytes, or is cut off")
    return plain


def _check_call(data: bytes) -> None:
    try:
        name, instance, args, kwargs = msgspec.json.decode(data, type=tuple[str, Any, list[Any], dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise ValueError(f"its payload {_shown(data)} is not [function, null, [arguments], {{}}]: {error}") from None
    if name not in ALLOWED or instance is not None:
        raise ValueError(f"{_shown(name.encode())} is not one of Whimbrel's jobs")
    if kwargs or [type(one) for one in args] != [int] * ALLOWED[name]:
        raise ValueError(f"{name} takes {ALLOWED[name]} integers, not {_shown(data)}")


def _shown(value: bytes) -> str:
    return repr(value[:60].decode(errors="replace"))


def _refuse(connection: redis.Redis | None, job_id: str, why: str) -> NoReturn:
    """Delete, count and name a job that is not ours. Raises `RefusedJob`."""
    log.warning("refused a job of the queue, %s: %s", _shown(job_id.encode(errors="replace")), why)
    if connection is not None:
        with contextlib.suppress(redis.RedisError, StoreError, BusyError):
            connection.delete(Job.key_for(job_id))
            shared_state.add_refused(connection, {rejection_counts.JOB: 1})
    raise RefusedJob(f"{job_id} is not one of Whimbrel's jobs: {why}")
