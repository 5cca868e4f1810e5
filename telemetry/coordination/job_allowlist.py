"""Allowlist of RQ jobs: only jobs exactly as Whimbrel's programs write them are run.

An attacker who can write RQ's keys could otherwise name any Python function (`os.system`), or give a job callbacks,
which RQ imports and calls even if the job fails. Webhooks, which RQ posts to any URL, retries, dependents, pickles and
zip bombs are further risks. Each job's hash is therefore checked before RQ reads it. Any other job is deleted, counted
and logged; for RQ it does not exist.
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
"""Functions that a job may name, and their number of integer arguments."""

QUEUE = "whimbrel-persist"
JOB_TIMEOUT_S = 120
MAX_DATA_BYTES = 512
MAX_FIELD_BYTES = 2_048
"""Maximum size of a decompressed payload and of any other field; Whimbrel's own have a tenth."""

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
"""Fields that a job's hash may have. Not allowed are callbacks, webhooks, retries, repeats, dependencies, groups,
limits."""


def short_name(function: str | None) -> str:
    """The job's name for metrics: its function without the module, or "other"."""
    return function.rpartition(".")[2] if function in ALLOWED else "other"


class RefusedJob(NoSuchJobError):
    """The job is not on the allowlist. RQ continues as if it did not exist."""


class AllowedJob(Job):
    """A job of `ALLOWED` without further fields. Raises `RefusedJob` when RQ reads any other."""

    @classmethod
    def fetch(cls, id: str, connection: redis.Redis | None = None, serializer: Any = None) -> Job:  # noqa: A002
        """The job with this id. Raises `NoSuchJobError`, also for an invalid id."""
        try:
            return super().fetch(id, connection, serializer)
        except ValueError as error:
            _refuse(connection, id, str(error))

    def refresh(self) -> None:
        """Read it from Redis and check it."""
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            _refuse(self.connection, self.id, str(error))

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Set the fields from a job's hash after the check."""
        if b"data" not in raw_data:
            raise NoSuchJobError(f"{self.id} has no payload: it has expired")
        try:
            super().restore(_checked(raw_data))
        except (ValueError, TypeError) as error:
            _refuse(self.connection, self.id, str(error))

    @property
    def func(self) -> Callable[..., Any]:
        """The function to run. Raises `PermissionError` if it is not on the allowlist, whatever the job's origin."""
        if self.func_name not in ALLOWED or self.instance is not None:
            raise PermissionError(f"{self.func_name} is not one of Whimbrel's jobs")
        return super().func  # type: ignore[no-any-return]

    @property
    def success_callback(self) -> None:
        """None, because RQ would import and call it."""

    @property
    def failure_callback(self) -> None:
        """None, because RQ would call it even for a rejected job."""

    @property
    def stopped_callback(self) -> None:
        """None."""

    def send_webhooks(self, *_what: object, **_more: object) -> None:
        """Do nothing."""


def _checked(raw: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The fields that RQ may read. Raises `ValueError` with the difference from Whimbrel's own jobs."""
    fields = {name: value for name, value in raw.items() if value}
    for name, value in fields.items():
        if name.decode() not in FIELDS:
            raise ValueError(f"it has {_shown(name)}, which Whimbrel's jobs do not have")
        if len(value) > MAX_FIELD_BYTES and name != b"exc_info":
            raise ValueError(f"its {name.decode()} has {len(value)} bytes")
    fields.pop(b"exc_info", None)  # unused and compressed
    if fields.get(b"origin") != QUEUE.encode():
        raise ValueError(f"its origin is {_shown(fields.get(b'origin', b''))}")
    if not 0 < int(fields.get(b"timeout", b"0")) <= JOB_TIMEOUT_S:
        raise ValueError(f"its timeout is {_shown(fields.get(b'timeout', b''))}")
    fields[b"data"] = _inflated(fields[b"data"])
    _check_call(fields[b"data"])
    return fields


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        plain = inflating.decompress(data, MAX_DATA_BYTES)
    except zlib.error:
        raise ValueError("its payload is not compressed") from None
    if not inflating.eof or inflating.unused_data:
        raise ValueError(f"its payload has more than {MAX_DATA_BYTES} bytes, or is truncated")
    return plain


def _check_call(data: bytes) -> None:
    try:
        name, instance, args, kwargs = msgspec.json.decode(data, type=tuple[str, Any, list[Any], dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise ValueError(f"its payload {_shown(data)} is not [function, null, [arguments], {{}}]: {error}") from None
    if name not in ALLOWED or instance is not None:
        raise ValueError(f"{_shown(name.encode())} is not one of Whimbrel's jobs")
    if kwargs or [type(argument) for argument in args] != [int] * ALLOWED[name]:
        raise ValueError(f"{name} takes {ALLOWED[name]} integers, not {_shown(data)}")


def _shown(value: bytes) -> str:
    return repr(value[:60].decode(errors="replace"))


def _refuse(connection: redis.Redis | None, job_id: str, why: str) -> NoReturn:
    """Delete, count and log a job that is not allowed. Raises `RefusedJob`."""
    log.warning("rejected job %s: %s", _shown(job_id.encode(errors="replace")), why)
    if connection is not None:
        with contextlib.suppress(redis.RedisError, StoreError, BusyError):
            connection.delete(Job.key_for(job_id))
            shared_state.add_refused(connection, {rejection_counts.JOB: 1})
    raise RefusedJob(f"{job_id} is not one of Whimbrel's jobs: {why}")
