"""Blocks of a file's sorted rows. Only keys are read first, because decoding texts is most of the cost of a page.

For the first page in a block, the keys of the block and the page's own rows are read. The next page nearby reads all
rows of the block, and later pages are in memory. So both sequential pages and jumps are cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.legacy.paging.lru_cache import Memory
from api.legacy.paging.rank_search import Marks
from api.legacy.paging.sort_key import GREATEST_KEY, LEAST_KEY, key, within
from api.legacy.wire.serializers import RecordSet, Shown
from api.snapshot.snapshot import Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import sql_text

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
"""The columns of rows, as the fields of `Shown`."""

_KEY_COLUMNS = "epoch_us(timestamp) AS timestamp_us, id"
_BY_KEY = [("timestamp_us", "ascending"), ("id", "ascending")]


class List(NamedTuple):
    """Selection of a list: a record set, one device or (empty) all, and a range of whole days in µs."""

    records: RecordSet
    device_id: str
    start_us: int
    end_us: int

    @property
    def wanted(self) -> Wanted:
        return Wanted([self.device_id] if self.device_id else [], self.start_us, self.end_us)

    @property
    def condition(self) -> str:
        """The SQL condition on a file's records. The range consists of whole days, so each file is entirely in it."""
        return self.records.condition + (f" AND device_id = {sql_text(self.device_id)}" if self.device_id else "")


class Block(NamedTuple):
    """`rows` rows of one file beginning at rank `first`, with least <= key < below. None: no such bound."""

    file: LiveFile
    first: int
    rows: int
    least: int | None = None
    below: int | None = None


class Piece(NamedTuple):
    """Sorted rows of a file: complete, or only their keys."""

    file: LiveFile
    table: pa.Table


class Blocks:
    """The blocks of one list as sorted tables. All have keys; complete ones also have the other columns of `SCHEMA`.

    A table has no coordinates if each of its rows has a `location`.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, memory: Memory, asked: List) -> None:
        self._connection = connection
        self._memory = memory
        self._asked = asked

    def known(self, block: Block) -> pa.Table | None:
        """The cached table of a block; None if there is none."""
        return self._memory.get(self._name(block))

    def note_access(self, block: Block, ranks: range) -> None:
        """Remember the ranks of the last access to a block."""
        self._memory.put(("near", self._name(block)), ranks)

    def was_accessed_near(self, block: Block, ranks: range) -> bool:
        """True if the ranks of the last access overlap these ranks."""
        before = self._memory.get(("near", self._name(block)))
        return before is not None and before.start < ranks.stop and ranks.start < before.stop

    def read_keys(self, blocks: Sequence[Block]) -> dict[Block, pa.Table]:
        """Read and cache the keys of blocks."""
        return self._cached(blocks, self._sorted(_paths(blocks), _condition(blocks)))

    def read_complete(self, blocks: Sequence[Block]) -> dict[Block, pa.Table]:
        """Read and cache all columns of blocks."""
        return self._cached(blocks, self._rows(_paths(blocks), _condition(blocks)))

    def rows(self, files: Iterable[LiveFile], keys: Sequence[tuple[int, int]]) -> list[Shown]:
        """The rows of files with these keys, (timestamp, id). The list has no other rows between the keys."""
        ids = [record_id for _, record_id in keys]
        between = within(key(*min(keys)), key(*max(keys)) + 1)
        condition = f"{between} AND id BETWEEN {min(ids)} AND {max(ids)}"
        table = self._rows([file.path for file in files], condition)
        return shown(pa.concat_tables([SCHEMA.empty_table(), table], promote_options="default"))

    def marks(self, file: LiveFile, step: int) -> Marks:
        """The key of every `step`-th record of a file in sorted order, and of the last."""
        keys = self._select([file.path], "true")
        order = pc.sort_indices(keys, sort_keys=_BY_KEY)
        ranks = [*range(0, len(order) - 1, step), len(order) - 1]
        marked = keys.take(order.take(ranks))
        return Marks(len(order), list(map(key, marked["timestamp_us"].to_pylist(), marked["id"].to_pylist())), ranks)

    def _select(self, paths: Sequence[str], condition: str, columns: str = _KEY_COLUMNS) -> pa.Table:
        """Columns of the records of files that meet a condition, unsorted."""
        return self._connection.sql(
            f"SELECT {columns} FROM read_parquet([{', '.join(map(sql_text, paths))}], hive_partitioning = false) "
            f"WHERE {self._asked.condition} AND {condition}"
        ).to_arrow_table()

    def _sorted(self, paths: Sequence[str], condition: str, *columns: str) -> pa.Table:
        """Keys and other columns, sorted by file and key. Arrow sorts, because it is faster than DuckDB here."""
        rows = self._select(paths, condition, ", ".join(("file_index", _KEY_COLUMNS, *columns)))
        order = pc.sort_indices(rows, sort_keys=[("file_index", "ascending"), *_BY_KEY])
        return rows.drop_columns("file_index").take(order)

    def _rows(self, paths: Sequence[str], condition: str) -> pa.Table:
        """All columns, sorted. Coordinates, which are slow to decode, are read only if a `location` is missing."""
        table = self._sorted(paths, condition, "device_id", "speed_kmh", "location")
        if table["location"].null_count:
            has_no_location = pc.is_null(table["location"])
            places = self._sorted(paths, condition, "latitude", "longitude")
            for name in ("latitude", "longitude"):
                table = table.append_column(name, pc.if_else(has_no_location, places[name], None))
        return table

    def _cached(self, blocks: Sequence[Block], rows: pa.Table) -> dict[Block, pa.Table]:
        """Divide rows into their blocks, and cache these."""
        tables, at = {}, 0
        for block in sorted(blocks, key=lambda block: (block.file.path, block.first)):
            tables[block] = rows.slice(at, block.rows)
            self._memory.put(self._name(block), tables[block])
            at += block.rows
        return tables

    def _name(self, block: Block) -> object:
        return "rows", block.file.path, self._asked.records.is_http, self._asked.device_id, block.first, block.rows


def is_complete(table: pa.Table) -> bool:
    """True if a block's table has more than keys."""
    return bool(table.schema.get_field_index("location") >= 0)  # faster than a look at the column names


def table_of(rows: Iterable[Shown]) -> pa.Table:
    """Rows as a table of `SCHEMA`."""
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def shown(table: pa.Table) -> list[Shown]:
    """The rows of a table of `SCHEMA`."""
    return [Shown(**row) for row in table.to_pylist()]


def _paths(blocks: Iterable[Block]) -> list[str]:
    """The paths of the blocks' files, sorted."""
    return sorted({block.file.path for block in blocks})


def _condition(blocks: Sequence[Block]) -> str:
    """The SQL condition that a key lies in one of the blocks, which are all bounded or all complete files.

    The range of all blocks comes first, with which DuckDB skips rows early, then the range of each block.
    """
    if blocks[0].least is None:
        return "true"
    places = {path: place for place, path in enumerate(_paths(blocks))}
    least = min(block.least or LEAST_KEY for block in blocks)
    below = max(block.below or GREATEST_KEY for block in blocks)
    if len(blocks) == 1:
        return within(least, below)
    each = " OR ".join(
        f"(file_index = {places[block.file.path]} AND {within(block.least or LEAST_KEY, block.below or GREATEST_KEY)})"
        for block in blocks
    )
    return f"{within(least, below)} AND ({each})"
