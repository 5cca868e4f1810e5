"""The marks of memory and disk from which on nothing is taken, until there is room again behind others.

From `full_percent` of Redis's memory on everything is refused, until the worker has drained it below
`resume_percent`: at the limit itself RQ could not even enqueue a save, and the box would be stuck. The same
where a disk has less room than the box keeps free (telemetry/system/disk_space.py).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import redis

from telemetry.hot_store.response_errors import translated
from telemetry.model.errors import BusyError
from telemetry.system.disk_space import Room

MARKS_CHECK_S = 0.25
"""How often the marks are looked at: at 200 MB/s a disk loses 50 MB between two looks."""


class Watermarks(NamedTuple):
    """Percent of Redis's memory: refuse from `full` on, take again below `resume`. And the disks' room."""

    full: int = 80
    resume: int = 70
    room: Room = Room()


class Gate:
    """Shut from one mark until the box is back behind the other, by looks that are some time apart."""

    def __init__(self, client: redis.Redis, marks: Watermarks) -> None:
        self._client = client
        self._marks = marks
        self._is_full = False
        self._is_short = False
        self._next_check_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it was at the last look, and none is due."""
        return not self._is_short and not self._is_full and time.monotonic() < self._next_check_s

    def pass_or_refuse(self) -> None:
        """Raise `BusyError` while it is shut, `StoreError` if Redis can't be asked."""
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
    """How much of its memory limit Redis uses; 0 if it has none."""
    info = translated(lambda: client.info("memory"))
    return 100 * info["used_memory"] / info["maxmemory"] if info["maxmemory"] else 0.0
