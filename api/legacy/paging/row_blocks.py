"""Blocks of a file's rows in order: first their keys alone, since decoding texts is most of what a page costs.

A page of a block that wasn't in memory costs the block's keys and then its own rows. Whoever asks for the next page
has all rows of the block read, and nothing after that: going from page to page costs little, and so does a jump.
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
"""The columns of rows: those of `Shown`."""

_KEY_COLUMNS = "epoch_us(timestamp) AS timestamp_us, id"
_BY_KEY = [("timestamp_us", "ascending"), ("id", "ascending")]


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


class Block(NamedTuple):
    """`rows` rows of one file from rank `first` on: those with least <= key < below. None: without such a bound."""

    file: LiveFile
    first: int
    rows: int
    least: int | None = None
    below: int | None = None


class Piece(NamedTuple):
    """Rows of a file in order: whole ones or keys alone."""

    file: LiveFile
    table: pa.Table


class Blocks:
    """The blocks of one list, as tables in order. All have keys; those that are whole have what is shown, too.

    A table has no coordinates if each of its rows has a `location`.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, memory: Memory, asked: List) -> None:
        self._connection = connection
        self._memory = memory
        self._asked = asked

    def known(self, block: Block) -> pa.Table | None:
        """What is in memory of a block."""
        return self._memory.get(self._name(block))

    def came_by(self, block: Block, ranks: range) -> None:
        """Remember where in a block somebody was."""
        self._memory.put(("near", self._name(block)), ranks)

    def was_near(self, block: Block, ranks: range) -> bool:
        """Whether the last who came by was at some of these ranks."""
        before = self._memory.get(("near", self._name(block)))
        return before is not None and before.start < ranks.stop and ranks.start < before.stop

    def read_keys(self, blocks: Sequence[Block]) -> dict[Block, pa.Table]:
        """The keys of blocks."""
        return self._remembered(blocks, self._sorted(_paths(blocks), _condition(blocks)))

    def read_whole(self, blocks: Sequence[Block]) -> dict[Block, pa.Table]:
        """All that is shown of the rows of blocks."""
        return self._remembered(blocks, self._rows(_paths(blocks), _condition(blocks)))

    def rows(self, files: Iterable[LiveFile], keys: Sequence[tuple[int, int]]) -> list[Shown]:
        """The rows of files with these keys, (timestamp, id), between which the files have no others of the list."""
        ids = [record_id for _, record_id in keys]
        between = within(key(*min(keys)), key(*max(keys)) + 1)
        condition = f"{between} AND id BETWEEN {min(ids)} AND {max(ids)}"
        table = self._rows([file.path for file in files], condition)
        return shown(pa.concat_tables([SCHEMA.empty_table(), table], promote_options="default"))

    def marks(self, file: LiveFile, step: int) -> Marks:
        """The key of every `step`-th record of a file in order, and of the last."""
        found = self._find([file.path], "true")
        order = pc.sort_indices(found, sort_keys=_BY_KEY)
        ranks = [*range(0, len(order) - 1, step), len(order) - 1]
        marked = found.take(order.take(ranks))
        return Marks(len(order), list(map(key, marked["timestamp_us"].to_pylist(), marked["id"].to_pylist())), ranks)

    def _find(self, paths: Sequence[str], condition: str, columns: str = _KEY_COLUMNS) -> pa.Table:
        """Columns of the records of files that meet a condition, in no order."""
        return self._connection.sql(
            f"SELECT {columns} FROM read_parquet([{', '.join(map(sql_text, paths))}], hive_partitioning = false) "
            f"WHERE {self._asked.condition} AND {condition}"
        ).to_arrow_table()

    def _sorted(self, paths: Sequence[str], condition: str, *columns: str) -> pa.Table:
        """Keys and such columns, one file after the other, each in order. Arrow sorts in a third of DuckDB's time."""
        found = self._find(paths, condition, ", ".join(("file_index", _KEY_COLUMNS, *columns)))
        order = pc.sort_indices(found, sort_keys=[("file_index", "ascending"), *_BY_KEY])
        return found.drop_columns("file_index").take(order)

    def _rows(self, paths: Sequence[str], condition: str) -> pa.Table:
        """The same with all that is shown; coordinates, which are long to decode, only for those without `location`."""
        table = self._sorted(paths, condition, "device_id", "speed_kmh", "location")
        if table["location"].null_count:
            is_bare = pc.is_null(table["location"])
            places = self._sorted(paths, condition, "latitude", "longitude")
            for name in ("latitude", "longitude"):
                table = table.append_column(name, pc.if_else(is_bare, places[name], None))
        return table

    def _remembered(self, blocks: Sequence[Block], every: pa.Table) -> dict[Block, pa.Table]:
        """Cut into blocks what was read of them."""
        found, at = {}, 0
        for block in sorted(blocks, key=lambda one: (one.file.path, one.first)):
            found[block] = every.slice(at, block.rows)
            self._memory.put(self._name(block), found[block])
            at += block.rows
        return found

    def _name(self, block: Block) -> object:
        return "rows", block.file.path, self._asked.records.is_http, self._asked.device_id, block.first, block.rows


def is_whole(table: pa.Table) -> bool:
    """Whether a block's table has more than keys."""
    return bool(
        table.schema.get_field_index("location") >= 0
    )  # a twentieth of a page's time less than asking its names


def table_of(rows: Iterable[Shown]) -> pa.Table:
    """Rows as a table of `SCHEMA`."""
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def shown(table: pa.Table) -> list[Shown]:
    """The rows of a table of `SCHEMA`."""
    return [Shown(**row) for row in table.to_pylist()]


def _paths(blocks: Iterable[Block]) -> list[str]:
    """The files of blocks, in the order of their paths."""
    return sorted({block.file.path for block in blocks})


def _condition(blocks: Sequence[Block]) -> str:
    """What SQL asks of the keys in blocks, which are all bounded or all whole files.

    First the range of all of them, by which DuckDB skips rows early; then that of each block.
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
