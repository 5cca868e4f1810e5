"""Decodes many stream entries in one call, which is faster for entries with few records (docs/performance.md).

If an entry differs from those that `append` writes, or cannot be decoded, all are left to `read_block`
(telemetry/hot_store/entry_codec.py), which decodes entries one by one. Both return the same records
(tests/worker/saving/test_batch_decoder.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

from telemetry.hot_store.entry_codec import LATEST_MS, MAX_FIRST_ID, RawEntry, has_usual_fields, pack_array
from telemetry.model.record import DECODE_ERRORS, Row, decode_entries

T = TypeVar("T")

_SHORT_ARRAYS = bytes(range(0x91, 0xA0))
_ARRAY16 = 0xDC


class Page(NamedTuple):
    """Records in the order of their entries: the number per entry, and each record's arrival, µs since epoch."""

    sizes: Sequence[int]
    arrivals_us: Sequence[int]
    ids: Sequence[int]
    rows: Sequence[Row]


def read_page(entries: Sequence[RawEntry], shards: int) -> Page | None:
    """The records of entries of any streams; None if they must be decoded one by one."""
    fields = [found for _, found in entries]
    if not fields or not all(has_usual_fields(f) and f[1].isdigit() for f in fields):
        return None
    try:
        first_ids = [int(f[1]) for f in fields]
        parts = decode_entries(pack_array([f[3] for f in fields]))
    except (*DECODE_ERRORS, ValueError):
        return None
    sizes = [_size(f[3]) for f in fields]
    if 0 in sizes or sizes != [len(rows) for rows in parts] or max(first_ids) > MAX_FIRST_ID:
        return None
    arrivals_ms = [int(entry.partition(b"-")[0]) for entry, _ in entries]
    if max(arrivals_ms) > LATEST_MS:
        return None
    if len(parts) == sum(sizes):
        return Page(sizes, [ms * 1_000 for ms in arrivals_ms], first_ids, [rows[0] for rows in parts])
    ids = (range(first, first + size * shards, shards) for first, size in zip(first_ids, sizes, strict=True))
    arrivals_us = ([ms * 1_000] * size for ms, size in zip(arrivals_ms, sizes, strict=True))
    return Page(sizes, _joined(arrivals_us), _joined(ids), _joined(parts))


def _joined(lists: Iterable[Iterable[T]]) -> list[T]:
    return list(chain.from_iterable(lists))


def _size(records: bytes) -> int:
    """Number of records in the header of an array; 0 if `append` would not store it.

    Together with the types of the elements, it detects entries that are mixed up or truncated.
    """
    if not records:
        return 0
    if records[0] in _SHORT_ARRAYS:
        return records[0] - 0x90
    return int.from_bytes(records[1:3]) if records[0] == _ARRAY16 else 0
