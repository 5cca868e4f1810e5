"""Counts, marks (rank_search.py) and blocks of sorted rows of a list's files, read once and cached.

A file never changes, so cached data never becomes stale. Blocks are large because files are sorted by device: reading
the keys of 50 rows takes as long as reading thousands, and the next page is probably among these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import duckdb
import pyarrow as pa

from api.legacy.paging.lru_cache import Memory
from api.legacy.paging.rank_search import Bounds, Marks, Part
from api.legacy.paging.row_blocks import Block, Blocks, List, Piece, is_complete
from api.legacy.paging.sort_key import GREATEST_KEY, LEAST_KEY, key
from api.legacy.wire.serializers import Shown
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import sql_text

STEP = 256
"""Ranks from one mark to the next: with more marks, more memory is used; with fewer, a page reads more records."""

SMALL_ROWS = 1_024
"""Maximum rows of a small file, which is one block and needs no marks."""

BLOCK_ROWS = 32_768
"""Maximum rows of one read for a page, distributed over its files."""

FILES_AHEAD = 32
"""Maximum small files that are read together with a page's file: the preceding ones in time, for the next pages."""


class Files:
    """The files of one list in one snapshot."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, memory: Memory, asked: List, files: Sequence[LiveFile]
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._asked = asked
        self.counts = self._counted(files)
        self.files = [file for file in files if self.counts[file.path]]
        self._marks: dict[str, Marks] = {}
        self._blocks = Blocks(connection, memory, asked)

    @property
    def total(self) -> int:
        """The number of the list's records in all files."""
        return sum(self.counts.values())

    def parts(self) -> list[Part]:
        """The marks or bounds of each file."""
        return [self._part(file) for file in self.files]

    def mark(self, files: Iterable[LiveFile]) -> None:
        """Read and cache the marks of files."""
        for file in files:
            self._marks[file.path] = marks = self._blocks.marks(file, STEP)
            self._memory.put(self._name("marks", file), marks)

    def unmarked(self, files: Iterable[LiveFile]) -> list[LiveFile]:
        """The files whose marks are needed and not known."""
        return [f for f in files if self.counts[f.path] > SMALL_ROWS and isinstance(self._part(f), Bounds)]

    def mark_newest(self, max_rows: int) -> None:
        """Read the marks of the newest files with up to `max_rows` records in total."""
        newest = sorted(self.files, key=lambda file: file.last_us or 0, reverse=True)
        rows = accumulate(self.counts[file.path] for file in newest)
        self.mark(self.unmarked(file for file, total in zip(newest, rows, strict=True) if total <= max_rows))

    def pieces(self, starts: Sequence[int], ends: Sequence[int]) -> list[Piece]:
        """The ranges of ranks [starts[f], ends[f]) of each file f, in pieces."""
        ranges = [(file, a, b) for file, a, b in zip(self.files, starts, ends, strict=True) if b > a]
        size = _block_size(len(ranges))
        cut = {block: range(a, b) for file, a, b in ranges for block in self._cut(file, size, a, b)}
        tables = self._read(cut)
        return [Piece(block.file, _between(block, tables[block], ranks)) for block, ranks in cut.items()]

    def rows(self, files: Iterable[LiveFile], keys: Sequence[tuple[int, int]]) -> list[Shown]:
        """The rows of files with these keys, (timestamp, id). The list has no other rows between the keys."""
        return self._blocks.rows(files, keys)

    def _name(self, kind: str, file: LiveFile, *more: object) -> object:
        return kind, file.path, self._asked.records.is_http, self._asked.device_id, *more

    # Counts

    def _counted(self, files: Sequence[LiveFile]) -> dict[str, int]:
        known = {file: self._known_count(file) for file in files}
        unknown = [file for file, count in known.items() if count is None]
        if unknown:
            counts = self._count(unknown)
            for file in unknown:
                known[file] = counts.get(file.path, 0)
                self._memory.put(self._name("count", file), known[file])
        return {file.path: count or 0 for file, count in known.items()}

    def _known_count(self, file: LiveFile) -> int | None:
        if file.transport is not None and not self._asked.records.holds(file.transport):
            return 0
        if file.transport is not None and not self._asked.device_id:
            return file.rows
        return self._memory.get(self._name("count", file))

    def _count(self, files: Sequence[LiveFile]) -> dict[str, int]:
        paths = ", ".join(sql_text(file.path) for file in files)
        counts = self._connection.execute(
            f"SELECT file_index, count(*) FROM read_parquet([{paths}], hive_partitioning = false) "
            f"WHERE {self._asked.condition} GROUP BY file_index"
        ).fetchall()
        return {files[index].path: count for index, count in counts}

    # Marks

    def _part(self, file: LiveFile) -> Part:
        marks = self._marks.get(file.path) or self._memory.get(self._name("marks", file))
        if marks is not None:
            self._marks[file.path] = marks
            return marks
        least = LEAST_KEY if file.first_us is None else key(file.first_us, 0)
        greatest = GREATEST_KEY if file.last_us is None else key(file.last_us + 1, 0)
        return Bounds(self.counts[file.path], least, greatest)

    # Rows

    def _cut(self, file: LiveFile, size: int, start: int, end: int) -> list[Block]:
        """The blocks of a file that contain the ranks [start, end)."""
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

    def _read(self, wanted: Mapping[Block, range]) -> dict[Block, pa.Table]:
        """The tables of blocks for the given ranks.

        Only the keys of large blocks are read first; all columns are read when an access overlaps the previous one.
        """
        tables = {block: table for block in wanted if (table := self._blocks.known(block)) is not None}
        unknown = [block for block in wanted if block not in tables]
        small = [block for block in unknown if block.least is None]
        large = [block for block in unknown if block.least is not None]
        only_keys = [block for block, table in tables.items() if not is_complete(table)]
        if small:
            tables |= self._blocks.read_complete(small + self._ahead([block.file for block in small]))
        if large:
            tables |= self._blocks.read_keys(large)
        elif only_keys and all(self._blocks.was_accessed_near(block, wanted[block]) for block in only_keys):
            return tables | self._blocks.read_complete(only_keys)
        for block in large + only_keys:
            self._blocks.note_access(block, wanted[block])
        return tables

    def _ahead(self, files: Sequence[LiveFile]) -> list[Block]:
        """Small files that end just before these do and are not cached."""
        latest_us = max((file.last_us or 0 for file in files), default=0)
        before = [f for f in self.files if f not in files and f.last_us is not None and f.last_us <= latest_us]
        nearest = sorted(before, key=lambda file: file.last_us or 0, reverse=True)[:FILES_AHEAD]
        blocks = [Block(f, 0, self.counts[f.path]) for f in nearest if self.counts[f.path] <= SMALL_ROWS]
        return [block for block in blocks if self._blocks.known(block) is None]


def _between(block: Block, table: pa.Table, ranks: range) -> pa.Table:
    """The rows of a block's table with the given ranks in the file."""
    first, last = max(ranks.start - block.first, 0), min(ranks.stop - block.first, block.rows)
    return table.slice(first, last - first)


def _block_size(files: int) -> int:
    """Rows of a block if this number of files is read together: a power of 2 times `STEP`, so that pages share
    blocks."""
    size = BLOCK_ROWS
    while size > STEP and size * files > BLOCK_ROWS:
        size //= 2
    return size
