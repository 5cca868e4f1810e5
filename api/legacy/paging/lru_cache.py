"""LRU cache of counts, marks and rows of files, with a memory limit."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from api.legacy.paging.rank_search import Marks
from api.snapshot.file_memory import FileMemory
from telemetry.observability import metrics

_MARK_BYTES, _NAME_BYTES = 60, 400


class Memory(FileMemory[object, Any]):
    """Cache of data from files, up to `max_bytes`; metrics report its size."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, _size_bytes)
        metrics.CACHE_BYTES.one.watch(lambda: self.held_bytes)
        metrics.CACHE_LIMIT.one.set(max_bytes)


def _size_bytes(value: Any) -> int:
    if isinstance(value, Marks):
        return _NAME_BYTES + _MARK_BYTES * len(value.keys)
    return _NAME_BYTES + (int(value.nbytes) if isinstance(value, pa.Table) else 0)
