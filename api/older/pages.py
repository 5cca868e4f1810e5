"""Pages by number over one snapshot of archive and tail: the newest timestamp first, `count` exact."""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.older.answers import OlderError
from api.older.files import GREATEST_KEY, LEAST_KEY, SMALL_ROWS, Files, List, Memory, key, table_of
from api.older.ranks import Bounds, Marks, Window, window
from api.older.records import Shown
from api.snapshot import Snapshots

PAGE_RECORDS = 50
_NEWEST_FIRST = [("timestamp_us", "descending"), ("id", "descending")]


class Page(NamedTuple):
    """One page: how many records the list has in all, the page's number and the last one's, and its records."""

    total: int
    number: int
    last: int
    records: list[Shown]


class Tail(NamedTuple):
    """The list's records that are not saved yet, the oldest first, and their keys."""

    keys: list[int]
    rows: list[Shown]

    @property
    def part(self) -> Marks:
        return Marks(len(self.keys), self.keys, range(len(self.keys)))


class Pages:
    """Finds pages, from any number of threads; remembers at most `max_bytes` of what it read."""

    def __init__(self, snapshots: Snapshots, max_bytes: int) -> None:
        self._snapshots = snapshots
        self._memory = Memory(max_bytes)

    def page(self, connection: duckdb.DuckDBPyConnection, asked: List, number: str) -> Page:
        """The page that `page=` names. Raises `OlderError` if there is none."""
        snapshot = self._snapshots.take(asked.wanted)
        shown = (Shown.of(stored) for stored in snapshot.tail if asked.records.holds(stored.record.transport))
        rows = sorted(shown, key=lambda one: (one.timestamp_us, one.id))
        tail = Tail([key(one.timestamp_us, one.id) for one in rows], rows)
        files = Files(connection, self._memory, asked, snapshot.files)
        total = files.total + len(rows)
        last = max(-(-total // PAGE_RECORDS), 1)
        chosen = _chosen(number, last)
        high = total - (chosen - 1) * PAGE_RECORDS
        low = max(high - PAGE_RECORDS, 0)
        return Page(total, chosen, last, _records(files, tail, low, high) if high else [])


def _chosen(number: str, last: int) -> int:
    """The number of the page that `page=` names, of 1 to `last`."""
    try:
        chosen = {"": 1, "last": last}.get(number) or int(number)
    except ValueError:
        chosen = 0
    if not 1 <= chosen <= last:
        raise OlderError(404, {"detail": "Invalid page."})
    return chosen


def _records(files: Files, tail: Tail, low: int, high: int) -> list[Shown]:
    """The records of the ranks [low, high), the newest first."""
    found = _window(files, tail, low, high)
    pieces = [*files.rows(found.starts[:-1], found.ends[:-1])]
    pieces.append(table_of(tail.rows[found.starts[-1] : found.ends[-1]]))
    table = pa.concat_tables(pieces)
    newer = table.num_rows - found.skip - (high - low)
    places = pc.sort_indices(table, sort_keys=_NEWEST_FIRST).slice(newer, high - low)
    return [Shown(**row) for row in table.take(places).to_pylist()]


def _window(files: Files, tail: Tail, low: int, high: int) -> Window:
    """What to read; learns the marks of files that would else be read whole."""
    while True:
        parts = files.parts()
        found = window([*parts, tail.part], low, high, LEAST_KEY, GREATEST_KEY)
        unmarked = [
            file
            for file, part, start, end in zip(files.files, parts, found.starts, found.ends, strict=False)
            if end > start and isinstance(part, Bounds) and part.total > SMALL_ROWS
        ]
        if not unmarked:
            return found
        files.mark(unmarked)
