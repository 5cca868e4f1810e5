"""Pages by number over one snapshot of archive and tail: the newest timestamp first, `count` exact."""

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
from api.legacy.paging.row_blocks import List, Piece, is_whole, shown
from api.legacy.paging.sort_key import GREATEST_KEY, LEAST_KEY
from api.legacy.paging.tail_index import Unsaved
from api.legacy.wire.responses import OlderError
from api.legacy.wire.serializers import Shown
from api.snapshot.snapshot import Snapshot, Snapshots
from telemetry.archive.data_files import LiveFile

PAGE_RECORDS = 50
PREPARED_ROWS = 2_000_000
"""Records in the newest files whose marks are learnt at the start: 0.1 s of work, and half a megabyte."""

_NEWEST_FIRST = [("timestamp_us", "descending"), ("id", "descending")]


class Page(NamedTuple):
    """One page: how many records the list has in all, the page's number and the last one's, and its records."""

    total: int
    number: int
    last: int
    records: list[Shown]


class Pages:
    """Finds pages, from any number of threads; remembers at most `max_bytes` of what it read."""

    def __init__(self, snapshots: Snapshots, max_bytes: int) -> None:
        self._snapshots = snapshots
        self._memory = Memory(max_bytes)

    def page(self, connection: duckdb.DuckDBPyConnection, asked: List, number: str) -> Page:
        """The page that `page=` names. Raises `OlderError` if there is none."""
        return self._page(connection, asked, number, self._snapshots.take(asked.wanted))

    def prepare(self, connection: duckdb.DuckDBPyConnection, asked: List) -> None:
        """Read what the first page and deeper ones of the newest days need, before anybody asks."""
        snapshot = self._snapshots.take(asked.wanted)
        for _ in ("its own rows", "its blocks whole"):
            self._page(connection, asked, "", snapshot)
        Files(connection, self._memory, asked, snapshot.files).mark_newest(PREPARED_ROWS)

    def _page(self, connection: duckdb.DuckDBPyConnection, asked: List, number: str, snapshot: Snapshot) -> Page:
        unsaved = Unsaved(snapshot, asked)
        files = Files(connection, self._memory, asked, snapshot.files)
        total = files.total + unsaved.rows.num_rows
        last = max(-(-total // PAGE_RECORDS), 1)
        chosen = _chosen(number, last)
        high = total - (chosen - 1) * PAGE_RECORDS
        low = max(high - PAGE_RECORDS, 0)
        return Page(total, chosen, last, _records(files, unsaved, low, high) if high else [])


def _chosen(number: str, last: int) -> int:
    """The number of the page that `page=` names, of 1 to `last`."""
    try:
        chosen = {"": 1, "last": last}.get(number) or int(number)
    except ValueError:
        chosen = 0
    if not 1 <= chosen <= last:
        raise OlderError(404, {"detail": "Invalid page."})
    return chosen


def _records(files: Files, unsaved: Unsaved, low: int, high: int) -> list[Shown]:
    """The records of the ranks [low, high), the newest first."""
    found = _window(files, unsaved, low, high)
    pieces = files.pieces(found.starts[:-1], found.ends[:-1])
    waiting = unsaved.rows.slice(found.starts[-1], found.ends[-1] - found.starts[-1])
    table = pa.concat_tables([*(piece.table for piece in pieces), waiting], promote_options="default")
    newer = table.num_rows - found.skip - (high - low)
    places = pc.sort_indices(table, sort_keys=_NEWEST_FIRST).slice(newer, high - low)
    return _filled(files, pieces, places.to_pylist(), shown(table.take(places)))


def _filled(files: Files, pieces: Sequence[Piece], places: Sequence[int], page: list[Shown]) -> list[Shown]:
    """A page's records, read where only keys are known; `places` are theirs in the pieces, one after the other."""
    ends = [*accumulate(piece.table.num_rows for piece in pieces)]
    bare: dict[tuple[int, int], LiveFile] = {}
    for place, one in zip(places, page, strict=True):
        number = bisect_right(ends, place)
        if number < len(pieces) and not is_whole(pieces[number].table):
            bare[one.timestamp_us, one.id] = pieces[number].file
    if not bare:
        return page
    read = {(one.timestamp_us, one.id): one for one in files.rows(set(bare.values()), [*bare])}
    return [read[at] if (at := (one.timestamp_us, one.id)) in bare else one for one in page]


def _window(files: Files, unsaved: Unsaved, low: int, high: int) -> Window:
    """What to read; learns the marks of files that would else be read whole."""
    while True:
        parts = files.parts()
        found = window([*parts, unsaved.part], low, high, LEAST_KEY, GREATEST_KEY)
        wanted = [file for file, start, end in zip(files.files, found.starts, found.ends, strict=False) if end > start]
        unmarked = files.unmarked(wanted)
        if not unmarked:
            return found
        files.mark(unmarked)
