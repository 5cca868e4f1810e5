"""What a list's files hold: counts, marks (see ranks.py) and blocks of rows in order, read once and remembered.

A file never changes, so what was learnt of it stays true. Blocks are as large as pays: to read 50 rows of
a file that is sorted by device costs as much as to read thousands, and the next page is among these.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from cachetools import LRUCache

from api.older.ranks import Bounds, Marks, Part
from api.older.records import RecordSet, Shown
from api.snapshot import Wanted
from telemetry.archive import LiveFile
from telemetry.columns import sql_text

STEP = 256
"""Ranks from one mark to the next: more marks cost memory, fewer make a page read more."""

SMALL_ROWS = 1_024
"""A file with at most so many rows of the list is one block and needs no marks."""

BLOCK_ROWS = 32_768
"""Rows that one page reads at once, about 2.5 MB, spread over the files that it touches."""

FILES_AHEAD = 32
"""Small files read at once with one that a page needs: those just before it in time, where the next pages are."""

LEAST_KEY, GREATEST_KEY = 0, 1 << 110
SCHEMA = pa.schema(
    [
        ("device_id", pa.string()),
        ("id", pa.int64()),
        ("timestamp_us", pa.int64()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("speed_kmh", pa.float64()),
        ("location", pa.string()),
    ]
)
"""The columns of rows: those of `Shown`."""

_ID_BITS = 53
_MARK_BYTES, _NAME_BYTES = 60, 400
_KEY_COLUMNS = "epoch_us(timestamp) AS timestamp_us, id"
_ROW_COLUMNS = "device_id, id, epoch_us(timestamp) AS timestamp_us, latitude, longitude, speed_kmh, location"


def key(timestamp_us: int, record_id: int) -> int:
    """A record's place in the order of (timestamp, id), as one number."""
    return (timestamp_us << _ID_BITS) | record_id


class List(NamedTuple):
    """What a list is of: one of the sets, one device or (empty) all, and a range of whole days in µs."""

    records: RecordSet
    device_id: str
    start_us: int
    end_us: int

    @property
    def wanted(self) -> Wanted:
        return Wanted([self.device_id] if self.device_id else [], self.start_us, self.end_us)

    @property
    def condition(self) -> str:
        """What SQL asks of a file's records; of whole days, so that no file is only partly in the range."""
        return self.records.condition + (f" AND device_id = {sql_text(self.device_id)}" if self.device_id else "")


class Memory:
    """What is known of files, within `max_bytes`, the least used forgotten first. Any thread may use it."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[object, Any] = LRUCache(max_bytes, _size_bytes)

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


class Block(NamedTuple):
    """`rows` rows of one file from rank `first` on: those with least <= key < below. None: without such a bound."""

    file: LiveFile
    first: int
    rows: int
    least: int | None = None
    below: int | None = None


class Files:
    """The files of one list as one question sees them."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, memory: Memory, asked: List, files: Sequence[LiveFile]
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._asked = asked
        self.counts = self._counted(files)
        self.files = [file for file in files if self.counts[file.path]]
        self._marks: dict[str, Marks] = {}

    @property
    def total(self) -> int:
        """How many records of the list all files have."""
        return sum(self.counts.values())

    def parts(self) -> list[Part]:
        """What is known of each file."""
        return [self._part(file) for file in self.files]

    def mark(self, files: Iterable[LiveFile]) -> None:
        """Learn the marks of files."""
        for file in files:
            self._marks[file.path] = marks = self._read_marks(file)
            self._memory.put(self._name("marks", file), marks)

    def rows(self, starts: Sequence[int], ends: Sequence[int]) -> Iterator[pa.Table]:
        """The rows of the ranks [starts[f], ends[f]) of each file f, in pieces."""
        ranges = [(file, a, b) for file, a, b in zip(self.files, starts, ends, strict=True) if b > a]
        size = _block_size(len(ranges))
        blocks = [(block, a, b) for file, a, b in ranges for block in self._blocks(file, size, a, b)]
        known = self._blocks_read([block for block, _, _ in blocks])
        for block, a, b in blocks:
            start, end = max(a - block.first, 0), min(b - block.first, block.rows)
            yield known[block].slice(start, end - start)

    def _name(self, kind: str, file: LiveFile, *more: object) -> object:
        return kind, file.path, self._asked.records.is_http, self._asked.device_id, *more

    # Counts

    def _counted(self, files: Sequence[LiveFile]) -> dict[str, int]:
        known = {file: self._known_count(file) for file in files}
        unknown = [file for file, count in known.items() if count is None]
        if unknown:
            found = self._count(unknown)
            for file in unknown:
                known[file] = found.get(file.path, 0)
                self._memory.put(self._name("count", file), known[file])
        return {file.path: count or 0 for file, count in known.items()}

    def _known_count(self, file: LiveFile) -> int | None:
        if file.transport is not None and not self._asked.records.holds(file.transport):
            return 0
        if file.transport is not None and not self._asked.device_id:
            return file.rows
        return self._memory.get(self._name("count", file))  # type: ignore[no-any-return]

    def _count(self, files: Sequence[LiveFile]) -> dict[str, int]:
        paths = ", ".join(sql_text(file.path) for file in files)
        found = self._connection.execute(
            f"SELECT file_index, count(*) FROM read_parquet([{paths}], hive_partitioning = false) "
            f"WHERE {self._asked.condition} GROUP BY file_index"
        ).fetchall()
        return {files[index].path: count for index, count in found}

    # Marks

    def _part(self, file: LiveFile) -> Part:
        marks = self._marks.get(file.path) or self._memory.get(self._name("marks", file))
        if marks is not None:
            self._marks[file.path] = marks
            return marks
        least = LEAST_KEY if file.first_us is None else key(file.first_us, 0)
        greatest = GREATEST_KEY if file.last_us is None else key(file.last_us + 1, 0)
        return Bounds(self.counts[file.path], least, greatest)

    def _read_marks(self, file: LiveFile) -> Marks:
        keys = self._connection.sql(f"{self._select(_KEY_COLUMNS, file)} ORDER BY timestamp, id").to_arrow_table()
        ranks = [*range(0, keys.num_rows - 1, STEP), keys.num_rows - 1]
        marked = keys.take(ranks)
        return Marks(keys.num_rows, list(map(key, *(column.to_pylist() for column in marked.columns))), ranks)

    def _select(self, columns: str, file: LiveFile) -> str:
        source = f"read_parquet({sql_text(file.path)}, hive_partitioning = false)"
        return f"SELECT {columns} FROM {source} WHERE {self._asked.condition}"

    # Rows

    def _blocks(self, file: LiveFile, size: int, start: int, end: int) -> list[Block]:
        """The blocks of a file that hold the ranks [start, end)."""
        count = self.counts[file.path]
        if count <= SMALL_ROWS:
            return [Block(file, 0, count)]
        keys = self._marks[file.path].keys
        return [
            Block(
                file,
                first,
                min(size, count - first),
                keys[first // STEP],
                keys[(first + size) // STEP] if first + size < count else None,
            )
            for first in range(start // size * size, end, size)
        ]

    def _blocks_read(self, blocks: Sequence[Block]) -> dict[Block, pa.Table]:
        known = {block: self._memory.get(self._block_name(block)) for block in blocks}
        missing = [block for block, table in known.items() if table is None]
        small = [block for block in missing if block.least is None]
        if small:
            small += self._ahead([block.file for block in small])
        for group in (small, [block for block in missing if block.least is not None]):
            if group:
                known.update(self._read(group))
        return known

    def _ahead(self, files: Sequence[LiveFile]) -> list[Block]:
        """The small files that end next before these do and aren't in memory."""
        latest_us = max((file.last_us or 0 for file in files), default=0)
        before = [f for f in self.files if f not in files and f.last_us is not None and f.last_us <= latest_us]
        nearest = sorted(before, key=lambda file: file.last_us or 0, reverse=True)[:FILES_AHEAD]
        blocks = [Block(f, 0, self.counts[f.path]) for f in nearest if self.counts[f.path] <= SMALL_ROWS]
        return [block for block in blocks if self._memory.get(self._block_name(block)) is None]

    def _block_name(self, block: Block) -> object:
        return self._name("rows", block.file, block.first, block.rows)

    def _read(self, blocks: Sequence[Block]) -> dict[Block, pa.Table]:
        """The rows of blocks, from one question over their files."""
        ordered = sorted(blocks, key=lambda block: (block.file.path, block.first))
        places = {path: place for place, path in enumerate(dict.fromkeys(block.file.path for block in ordered))}
        paths = ", ".join(map(sql_text, places))
        every = self._connection.sql(
            f"SELECT {_ROW_COLUMNS} FROM read_parquet([{paths}], hive_partitioning = false) "
            f"WHERE {self._asked.condition} AND {_within(ordered, places)} ORDER BY file_index, timestamp, id"
        ).to_arrow_table()
        found, at = {}, 0
        for block in ordered:
            found[block] = every.slice(at, block.rows)
            self._memory.put(self._block_name(block), found[block])
            at += block.rows
        return found


def _block_size(files: int) -> int:
    """Rows a file when so many are read at once: a power of 2 times `STEP`, so that pages share blocks."""
    size = BLOCK_ROWS
    while size > STEP and size * files > BLOCK_ROWS:
        size //= 2
    return size


def _within(blocks: Sequence[Block], places: Mapping[str, int]) -> str:
    """What SQL asks of the keys in blocks, which are all bounded or all whole files; `places` are those of the files.

    First the range of all of them, by which DuckDB skips rows early; then that of each block.
    """
    if blocks[0].least is None:
        return "true"
    least = min(block.least or LEAST_KEY for block in blocks)
    below = max(block.below or GREATEST_KEY for block in blocks)
    if len(blocks) == 1:
        return _key_range(least, below)
    each = " OR ".join(f"(file_index = {places[block.file.path]} AND {_keys_of(block)})" for block in blocks)
    return f"{_key_range(least, below)} AND ({each})"


def _keys_of(block: Block) -> str:
    return _key_range(block.least or LEAST_KEY, block.below or GREATEST_KEY)


def _key_range(least: int, below: int) -> str:
    """What SQL asks of keys in [least, below)."""
    (start, first_id), (end, end_id) = _moment(least), _moment(below)
    return (
        f"timestamp >= {start} AND (timestamp > {start} OR id >= {first_id}) "
        f"AND timestamp <= {end} AND (timestamp < {end} OR id < {end_id})"
    )


def _moment(of_key: int) -> tuple[str, int]:
    """A key's timestamp as SQL, and its id."""
    timestamp_us, record_id = of_key >> _ID_BITS, of_key & ((1 << _ID_BITS) - 1)
    return f"make_timestamptz({timestamp_us}::BIGINT)", record_id


def table_of(rows: Iterable[Shown]) -> pa.Table:
    """Rows as a table of `SCHEMA`."""
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
