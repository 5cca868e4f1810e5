"""High and low watermarks of Redis memory and free disk space: above the high one, records are rejected until usage
drops.

From `full_percent` of Redis's memory on all records are rejected, until the worker has drained it below
`resume_percent`: at the memory limit RQ could not even enqueue a save, and the box would be stuck. The same applies if
a disk has less free space than required (telemetry/system/disk_space.py).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import redis

from telemetry.hot_store.response_errors import translated
from telemetry.model.errors import BusyError
from telemetry.system.disk_space import Room

MARKS_CHECK_S = 0.25
"""Interval of checks, s: at 200 MB/s a disk loses 50 MB between two checks."""


class Watermarks(NamedTuple):
    """Percent of Redis's memory: reject from `full` on, accept again below `resume`. And the disks' free space."""

    full: int = 80
    resume: int = 70
    room: Room = Room()


class Gate:
    """Closed from the high watermark until usage is below the low one; checked at intervals."""

    def __init__(self, client: redis.Redis, marks: Watermarks) -> None:
        self._client = client
        self._marks = marks
        self._is_full = False
        self._is_short = False
        self._next_check_s = 0.0

    @property
    def is_open(self) -> bool:
        """True if it was open at the last check, and none is due."""
        return not self._is_short and not self._is_full and time.monotonic() < self._next_check_s

    def pass_or_refuse(self) -> None:
        """Raise `BusyError` while it is closed, `StoreError` if Redis is not reachable."""
        now_s = time.monotonic()
        if now_s >= self._next_check_s:
            self._look()
            self._next_check_s = now_s + MARKS_CHECK_S
        if self._is_short:
            raise BusyError("the disk has too little room left", retry_after_s=30)
        if self._is_full:
            raise BusyError("Redis is above its memory mark; the worker drains it", retry_after_s=5)

    def _look(self) -> None:
        try:
            self._is_short = self._marks.room.is_short(self._is_short)
        except OSError as error:
            raise BusyError(f"cannot look at the disk: {error}", retry_after_s=30) from error
        used_percent = memory_percent(self._client)
        self._is_full = used_percent >= (self._marks.resume if self._is_full else self._marks.full)


def memory_percent(client: redis.Redis) -> float:
    """Used share of Redis's memory limit, percent; 0 without a limit."""
    info = translated(lambda: client.info("memory"))
    return 100 * info["used_memory"] / info["maxmemory"] if info["maxmemory"] else 0.0
