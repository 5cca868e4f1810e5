"""What is known of files, within so many bytes."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
from cachetools import LRUCache

from api.older.ranks import Marks
from telemetry import meters

_MARK_BYTES, _NAME_BYTES = 60, 400


class Memory:
    """What is known of files, within `max_bytes`, the least used forgotten first. Any thread may use it."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[object, Any] = LRUCache(max_bytes, _size_bytes)
        meters.CACHE_BYTES.one.watch(lambda: self._known.currsize)
        meters.CACHE_LIMIT.one.set(max_bytes)

    def get(self, name: object) -> Any:
        """What is known by that name, or None."""
        with self._lock:
            return self._known.get(name)

    def put(self, name: object, value: Any) -> None:
        """Remember, unless it is too large."""
        with self._lock:
            if _size_bytes(value) <= self._known.maxsize:
                self._known[name] = value


def _size_bytes(value: Any) -> int:
    if isinstance(value, Marks):
        return _NAME_BYTES + _MARK_BYTES * len(value.keys)
    return _NAME_BYTES + (int(value.nbytes) if isinstance(value, pa.Table) else 0)
