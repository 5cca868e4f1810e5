"""Numbered pages over one snapshot of archive and unsaved records: newest timestamp first, with an exact count."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.legacy.paging.file_index import Files
from api.legacy.paging.lru_cache import Memory
from api.legacy.paging.rank_search import Window, window
from api.legacy.paging.row_blocks import List, Piece, is_complete, shown
from api.legacy.paging.sort_key import GREATEST_KEY, LEAST_KEY
from api.legacy.paging.tail_index import Unsaved
from api.legacy.wire.responses import OlderError
from api.legacy.wire.serializers import Shown
from api.snapshot.snapshot import Snapshot, Snapshots
from telemetry.archive.data_files import LiveFile

PAGE_RECORDS = 50
PREPARED_ROWS = 2_000_000
"""Maximum records in the newest files whose marks are read at the start."""

_NEWEST_FIRST = [("timestamp_us", "descending"), ("id", "descending")]


class Page(NamedTuple):
    """One page: the list's total number of records, the numbers of this and the last page, and the page's records."""

    total: int
    number: int
    last: int
    records: list[Shown]


class Pages:
    """Finds pages; caches up to `max_bytes` of data. Any thread may use it."""

    def __init__(self, snapshots: Snapshots, max_bytes: int) -> None:
        self._snapshots = snapshots
        self._memory = Memory(max_bytes)

    def page(self, connection: duckdb.DuckDBPyConnection, asked: List, number: str) -> Page:
        """The page with the number in `page=`. Raises `OlderError` if there is none."""
        return self._page(connection, asked, number, self._snapshots.take(asked.wanted))

    def prepare(self, connection: duckdb.DuckDBPyConnection, asked: List) -> None:
        """Read the data for the first page and for pages of the newest days into the cache."""
        snapshot = self._snapshots.take(asked.wanted)
        for _ in ("the page's rows", "the complete blocks"):
            self._page(connection, asked, "", snapshot)
        Files(connection, self._memory, asked, snapshot.files).mark_newest(PREPARED_ROWS)

    def _page(self, connection: duckdb.DuckDBPyConnection, asked: List, number: str, snapshot: Snapshot) -> Page:
        unsaved = Unsaved(snapshot, asked)
        files = Files(connection, self._memory, asked, snapshot.files)
        total = files.total + unsaved.rows.num_rows
        last = max(-(-total // PAGE_RECORDS), 1)
        page_number = _page_number(number, last)
        high = total - (page_number - 1) * PAGE_RECORDS
        low = max(high - PAGE_RECORDS, 0)
        return Page(total, page_number, last, _records(files, unsaved, low, high) if high else [])


def _page_number(text: str, last: int) -> int:
    """The number in `page=`, from 1 to `last`."""
    try:
        number = {"": 1, "last": last}.get(text) or int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= last:
        raise OlderError(404, {"detail": "Invalid page."})
    return number


def _records(files: Files, unsaved: Unsaved, low: int, high: int) -> list[Shown]:
    """The records of the ranks [low, high), the newest first."""
    ranks = _window(files, unsaved, low, high)
    pieces = files.pieces(ranks.starts[:-1], ranks.ends[:-1])
    tail = unsaved.rows.slice(ranks.starts[-1], ranks.ends[-1] - ranks.starts[-1])
    table = pa.concat_tables([*(piece.table for piece in pieces), tail], promote_options="default")
    newer = table.num_rows - ranks.skip - (high - low)
    places = pc.sort_indices(table, sort_keys=_NEWEST_FIRST).slice(newer, high - low)
    return _filled(files, pieces, places.to_pylist(), shown(table.take(places)))


def _filled(files: Files, pieces: Sequence[Piece], places: Sequence[int], page: list[Shown]) -> list[Shown]:
    """A page with complete records: reads the records in pieces that have only keys.

    `places` are the positions of the records in the concatenated pieces.
    """
    ends = [*accumulate(piece.table.num_rows for piece in pieces)]
    only_keys: dict[tuple[int, int], LiveFile] = {}
    for place, record in zip(places, page, strict=True):
        number = bisect_right(ends, place)
        if number < len(pieces) and not is_complete(pieces[number].table):
            only_keys[record.timestamp_us, record.id] = pieces[number].file
    if not only_keys:
        return page
    read = {(record.timestamp_us, record.id): record for record in files.rows(set(only_keys.values()), [*only_keys])}
    return [read.get((record.timestamp_us, record.id), record) for record in page]


def _window(files: Files, unsaved: Unsaved, low: int, high: int) -> Window:
    """The ranks to read of each part. Reads the marks of files that would otherwise be read completely."""
    while True:
        parts = files.parts()
        ranks = window([*parts, unsaved.part], low, high, LEAST_KEY, GREATEST_KEY)
        wanted = [file for file, start, end in zip(files.files, ranks.starts, ranks.ends, strict=False) if end > start]
        unmarked = files.unmarked(wanted)
        if not unmarked:
            return ranks
        files.mark(unmarked)
