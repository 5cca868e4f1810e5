"""What is known of the archive's files, within a limit of bytes: a file never changes under its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FileMemory(Generic[K, V]):
    """Remembers a value of each file or part of a file, and forgets the least used first. Any thread may use it."""

    def __init__(self, max_bytes: int, size_bytes: Callable[[V], int]) -> None:
        self._known: LRUCache[K, V] = LRUCache(max_bytes, size_bytes)
        self._size_bytes = size_bytes
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def held_bytes(self) -> int:
        """Size of all values together."""
        return int(self._known.currsize)

    def get(self, key: K) -> V | None:
        """The value of a file; None if it is not known."""
        with self._lock:
            return self._known.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember a value, unless it alone is larger than the limit."""
        with self._lock:
            if self._size_bytes(value) <= self._known.maxsize:
                self._known[key] = value
