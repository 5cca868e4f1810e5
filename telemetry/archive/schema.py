"""The columns of the archive's files, records as such columns, and DuckDB, which writes and reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.archive.arrow_arrays import array_of, of_runs
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import Row
from telemetry.model.utc import DAY_US, SQL_FORMAT, day_of
from telemetry.system.fsync import make_folder

pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own gives little back: under load 50 MB more in each program

T = TypeVar("T")

TIME = pa.timestamp("us", tz="UTC")
MEASURED_SQL = "least(timestamp, received_at)"

COLUMNS = pa.schema(
    [
        ("device_id", pa.string()),
        ("timestamp", TIME),
        ("received_at", TIME),
        ("id", pa.int64()),
        ("transport", pa.string()),
        ("source", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("altitude_m", pa.float64()),
        ("speed_kmh", pa.float64()),
        ("heading_deg", pa.float64()),
        ("accuracy_m", pa.float64()),
        ("location", pa.string()),
        ("attributes", pa.string()),
    ]
)
"""The columns of a file; the table has `date` besides."""

_BEHIND_DEVICE = list(COLUMNS)[1:]

LAYOUT = 1
"""Of the table and of its files; it rises when a column is added. A column is added at the end and may be null; none is
ever taken away. So files of every layout before are read as they are."""

ORDER = ("device_id", "timestamp", "id")
"""Of the rows of a file."""

BOUNDED = ("device_id", "timestamp", "received_at", "id", "transport")
"""Columns whose least and greatest value the log keeps for each file, so that queries skip files or need none."""


PIECE_ROWS = 1_000
"""Rows that become columns at once: few enough for the processor's cache, which takes half the time."""


class Columns:
    """Makes columns of blocks as they come, and keeps no row longer than it must."""

    def __init__(self) -> None:
        self._made: list[pa.RecordBatch] = []
        self._begin()

    def _begin(self) -> None:
        self._devices: list[str] = []
        self._arrivals_us: list[int] = []
        self._ids: list[int] = []
        self._rows: list[Row] = []

    def add(self, block: Block) -> None:
        """Add records behind all others."""
        self._devices += [block.device_id] * len(block.rows)
        self._arrivals_us += [block.received_ms * 1_000] * len(block.rows)
        self._ids += block.ids
        self._rows += block.rows
        if len(self._rows) >= PIECE_ROWS:
            self._make()

    def add_piece(
        self,
        devices: Sequence[str],
        counts: Sequence[int],
        arrivals_us: Sequence[int],
        ids: Sequence[int],
        rows: Sequence[Row],
    ) -> None:
        """The same of records of several devices, best some `PIECE_ROWS`: so many of each device, and all arrivals."""
        if self._rows:
            self._make()
        self._made.append(_batch(of_runs(devices, counts), arrivals_us, ids, rows))

    def table(self) -> pa.Table:
        """All records, as a table of `COLUMNS`."""
        if self._rows:
            self._make()
        return pa.Table.from_batches(self._made, COLUMNS)

    def _make(self) -> None:
        devices = array_of(self._devices, COLUMNS.field("device_id").type)
        self._made.append(_batch(devices, self._arrivals_us, self._ids, self._rows))
        self._begin()


def _batch(devices: pa.Array, arrivals_us: Sequence[int], ids: Sequence[int], rows: Sequence[Row]) -> pa.RecordBatch:
    _, times, *rest = zip(*rows, strict=True)  # before the times the layout's version, which is one
    values = (times, arrivals_us, ids, *rest)
    made = [array_of(found, field.type) for found, field in zip(values, _BEHIND_DEVICE, strict=True)]
    return pa.record_batch([devices, *made], schema=COLUMNS)


def columns(blocks: Iterable[Block]) -> pa.Table:
    """Records as an Arrow table of `COLUMNS`, in the order of their blocks."""
    found = Columns()
    for block in blocks:
        found.add(block)
    return found.table()


def days_of(records: pa.Table) -> list[tuple[date, pa.Table]]:
    """The records of each day, the oldest first."""
    number = pc.divide(records.column("timestamp").cast(pa.int64()), DAY_US)
    found = sorted(pc.unique(number).to_pylist())
    if len(found) == 1:
        return [(day_of(found[0] * DAY_US), records)]
    return [(day_of(day * DAY_US), records.filter(pc.equal(number, day))) for day in found]


def is_sorted(records: pa.Table) -> bool:
    """Whether records are in the order of files: by device, timestamp and id."""
    if records.num_rows < 2:
        return True
    rises: Any = True
    for name in reversed(ORDER):
        column = records.column(name)
        one, next_one = column.slice(0, len(column) - 1), column.slice(1)
        rises = pc.or_(pc.less(one, next_one), pc.and_(pc.equal(one, next_one), rises))
    return pc.all(rises).as_py()  # type: ignore[no-any-return]


def in_order(records: pa.Table) -> pa.Table:
    """The same in the order of files. In one piece: to gather rows out of many takes four times as long."""
    rows = records.unify_dictionaries().combine_chunks()
    devices = rows.column("device_id").combine_chunks()
    if not pa.types.is_dictionary(devices.type):
        devices = devices.dictionary_encode()
    ranks = pc.array_sort_indices(pc.array_sort_indices(devices.dictionary))
    keys = pa.table([ranks.take(devices.indices), *(rows.column(name) for name in ORDER[1:])], names=list(ORDER))
    return only_used(rows.take(pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in ORDER])))


def only_used(records: pa.Table) -> pa.Table:
    """The same, its devices' dictionary without those that no row has.

    Arrow writes a dictionary whole, into each row group, and joins those of slices one after the other: without this a
    merge of 100,000 devices takes half as long again.
    """
    at = records.schema.get_field_index("device_id")
    if not records.num_rows or not pa.types.is_dictionary(records.schema.field(at).type):
        return records
    devices = records.unify_dictionaries().column(at).combine_chunks()
    used = devices.indices.dictionary_encode()
    found = pa.DictionaryArray.from_arrays(used.indices, devices.dictionary.take(used.dictionary))
    return records.set_column(at, records.schema.field(at), found)


def least_and_greatest(records: pa.Table, name: str) -> tuple[Any, Any]:
    """Of a column's values; times in µs since the epoch."""
    column = records.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.unique().cast(column.type.value_type)
    found = pc.min_max(column.cast(pa.int64()) if column.type == TIME else column)
    return found["min"].as_py(), found["max"].as_py()


def sql_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def seen_sql(imported: Iterable[range] = ()) -> str:
    """SQL of when a record shows that its device was there: on arrival, but an imported one when it was measured.

    `imported` are ids of imported records whose transport is not `import` (`Archive.imported_otherwise`).
    """
    is_imported = " OR ".join(["transport = 'import'", *map(has_id_sql, imported)])
    return f"CASE WHEN {is_imported} THEN {MEASURED_SQL} ELSE received_at END"


def has_id_sql(ids: range) -> str:
    """SQL of whether a record has one of some ids."""
    return f"(id >= {ids.start} AND id < {ids.stop} AND id % {ids.step} = {ids.start % ids.step})"


def time_sql(us: str) -> str:
    """SQL of the text of a moment, given SQL of its µs since the epoch: 2026-11-24T10:25:00.000000Z."""
    return f"strftime(make_timestamp({us}), '{SQL_FORMAT}')"


def file_name(kind: str, token: str, layout: int = LAYOUT) -> str:
    """What a new file is called. Its layout is in its name, from the second on."""
    return f"{kind}-{token}{f'.v{layout}' if layout > 1 else ''}.parquet"


def layout_of(path: str) -> int:
    """The layout of a file, by its name."""
    found = re.search(r"\.v(\d+)\.parquet$", path)
    return int(found[1]) if found else 1


def records_sql(paths: Sequence[str]) -> str:
    """A DuckDB table of all columns of some files. One that a file of an older layout lacks is null there.

    Files of one layout are read in nine tenths of the time.
    """
    listed = f"read_parquet([{', '.join(map(sql_text, paths))}], hive_partitioning = false"
    if all(layout_of(path) == LAYOUT for path in paths):
        return f"{listed})"
    names = ", ".join(COLUMNS.names)
    return f"(SELECT {names} FROM (SELECT * FROM {listed}, union_by_name = true) UNION ALL BY NAME {nothing_sql()}))"


def nothing_sql() -> str:
    """A DuckDB query of all columns, and no row."""
    types = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE"}
    nulls = (f"NULL::{types.get(str(field.type), 'TIMESTAMPTZ')} AS {field.name}" for field in COLUMNS)
    return f"(SELECT {', '.join(nulls)} WHERE false)"


def open_duckdb(temp_dir: Path | None = None, memory_limit: str = "1GB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB in UTC that fetches nothing from the network."""
    connection = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "async_threads": 1,  # of its eight each keeps memory, and files on a local disk don't need them
            "autoinstall_known_extensions": False,
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET allocator_background_threads = true")  # gives memory back seconds after its use
    if temp_dir is not None:
        make_folder(temp_dir.parent, 0o700)
        make_folder(temp_dir, 0o700)
        connection.execute(f"SET temp_directory = {sql_text(str(temp_dir))}")
    return connection


def with_memory(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], most_bytes: int) -> T:
    """Do `work`; where the connection has too little memory for it with twice as much, again and again.

    A sort spills rows, but not their long texts. Raises `duckdb.OutOfMemoryException` if `most_bytes` are too little.
    """
    [(usual,)] = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    limit_bytes = first_bytes = _bytes(usual)
    try:
        while True:
            try:
                return work()
            except duckdb.OutOfMemoryException:
                limit_bytes *= 2
                if limit_bytes > most_bytes:
                    raise
                connection.execute(f"SET memory_limit = '{limit_bytes}B'")
    finally:
        if limit_bytes != first_bytes:
            connection.execute(f"SET memory_limit = '{first_bytes}B'")


def _bytes(size: str) -> int:
    """The bytes of a size as DuckDB words it, like `96.0 MiB`."""
    number, unit = size.split()
    return round(float(number) * 1024.0 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))
