"""What a list's files hold: counts, marks (see rank_search.py) and blocks of rows in order, read once and remembered.

A file never changes, so what was learnt of it stays true. Blocks are as large as pays: the keys
of 50 rows of a file that is sorted by device cost as much as those of thousands, and the next page is among these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import duckdb
import pyarrow as pa

from api.legacy.paging.lru_cache import Memory
from api.legacy.paging.rank_search import Bounds, Marks, Part
from api.legacy.paging.row_blocks import Block, Blocks, List, Piece, is_whole
from api.legacy.paging.sort_key import GREATEST_KEY, LEAST_KEY, key
from api.legacy.wire.serializers import Shown
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import sql_text

STEP = 256
"""Ranks from one mark to the next: more marks cost memory, fewer make a page read more."""

SMALL_ROWS = 1_024
"""A file with at most so many rows of the list is one block and needs no marks."""

BLOCK_ROWS = 32_768
"""Rows that one page reads at once, about 2.5 MB, spread over the files that it touches."""

FILES_AHEAD = 32
"""Small files read at once with one that a page needs: those just before it in time, where the next pages are."""


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
        self._blocks = Blocks(connection, memory, asked)

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
            self._marks[file.path] = marks = self._blocks.marks(file, STEP)
            self._memory.put(self._name("marks", file), marks)

    def unmarked(self, files: Iterable[LiveFile]) -> list[LiveFile]:
        """Those of files whose marks are needed and not known."""
        return [f for f in files if self.counts[f.path] > SMALL_ROWS and isinstance(self._part(f), Bounds)]

    def mark_newest(self, most_rows: int) -> None:
        """Learn the marks of the newest files that hold so many records."""
        newest = sorted(self.files, key=lambda file: file.last_us or 0, reverse=True)
        rows = accumulate(self.counts[file.path] for file in newest)
        self.mark(self.unmarked(file for file, so_far in zip(newest, rows, strict=True) if so_far <= most_rows))

    def pieces(self, starts: Sequence[int], ends: Sequence[int]) -> list[Piece]:
        """The ranges of ranks [starts[f], ends[f]) of each file f, in pieces."""
        ranges = [(file, a, b) for file, a, b in zip(self.files, starts, ends, strict=True) if b > a]
        size = _block_size(len(ranges))
        cut = {block: range(a, b) for file, a, b in ranges for block in self._cut(file, size, a, b)}
        tables = self._read(cut)
        return [Piece(block.file, _between(block, tables[block], ranks)) for block, ranks in cut.items()]

    def rows(self, files: Iterable[LiveFile], keys: Sequence[tuple[int, int]]) -> list[Shown]:
        """The rows of files with these keys, (timestamp, id), between which the list has no others."""
        return self._blocks.rows(files, keys)

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
        return self._memory.get(self._name("count", file))

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

    # Rows

    def _cut(self, file: LiveFile, size: int, start: int, end: int) -> list[Block]:
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

    def _read(self, wanted: Mapping[Block, range]) -> dict[Block, pa.Table]:
        """The tables of blocks of which these ranks are wanted.

        Of large blocks the keys are read first, and the rest once somebody goes on from where one was before.
        """
        found = {block: table for block in wanted if (table := self._blocks.known(block)) is not None}
        unknown = [block for block in wanted if block not in found]
        small = [block for block in unknown if block.least is None]
        large = [block for block in unknown if block.least is not None]
        bare = [block for block, table in found.items() if not is_whole(table)]
        if small:
            found |= self._blocks.read_whole(small + self._ahead([block.file for block in small]))
        if large:
            found |= self._blocks.read_keys(large)
        elif bare and all(self._blocks.was_near(block, wanted[block]) for block in bare):
            return found | self._blocks.read_whole(bare)
        for block in large + bare:
            self._blocks.came_by(block, wanted[block])
        return found

    def _ahead(self, files: Sequence[LiveFile]) -> list[Block]:
        """The small files that end next before these do and aren't in memory."""
        latest_us = max((file.last_us or 0 for file in files), default=0)
        before = [f for f in self.files if f not in files and f.last_us is not None and f.last_us <= latest_us]
        nearest = sorted(before, key=lambda file: file.last_us or 0, reverse=True)[:FILES_AHEAD]
        blocks = [Block(f, 0, self.counts[f.path]) for f in nearest if self.counts[f.path] <= SMALL_ROWS]
        return [block for block in blocks if self._blocks.known(block) is None]


def _between(block: Block, table: pa.Table, ranks: range) -> pa.Table:
    """Of a block's table those ranks of its file."""
    first, last = max(ranks.start - block.first, 0), min(ranks.stop - block.first, block.rows)
    return table.slice(first, last - first)


def _block_size(files: int) -> int:
    """Rows a file when so many are read at once: a power of 2 times `STEP`, so that pages share blocks."""
    size = BLOCK_ROWS
    while size > STEP and size * files > BLOCK_ROWS:
        size //= 2
    return size
