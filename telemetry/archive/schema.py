"""Columns of the archive's files, conversion of records to columns, and DuckDB connections to write and read them."""

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

pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool returns little memory to the system

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
"""Columns of a file; the table also has `date`."""

_AFTER_DEVICE = list(COLUMNS)[1:]

LAYOUT = 1
"""Layout of the table and its files; it increases when a column is added. New columns are appended and nullable;
columns are never removed. Files of every earlier layout can be read unchanged."""

ORDER = ("device_id", "timestamp", "id")
"""Sort order of the rows of a file."""

BOUNDED = ("device_id", "timestamp", "received_at", "id", "transport")
"""Columns whose minimum and maximum the log has for each file, so that queries can skip files."""


PIECE_ROWS = 1_000
"""Rows converted to columns at a time, few enough for the processor's cache."""


class Columns:
    """Converts blocks to columns as they arrive, and keeps no row longer than necessary."""

    def __init__(self) -> None:
        self._made: list[pa.RecordBatch] = []
        self._begin()

    def _begin(self) -> None:
        self._devices: list[str] = []
        self._arrivals_us: list[int] = []
        self._ids: list[int] = []
        self._rows: list[Row] = []

    def add(self, block: Block) -> None:
        """Append records."""
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
        """Append records of several devices, ideally about `PIECE_ROWS`; `counts` are the numbers per device."""
        if self._rows:
            self._make()
        self._made.append(_batch(of_runs(devices, counts), arrivals_us, ids, rows))

    def table(self) -> pa.Table:
        """All records as a table of `COLUMNS`."""
        if self._rows:
            self._make()
        return pa.Table.from_batches(self._made, COLUMNS)

    def _make(self) -> None:
        devices = array_of(self._devices, COLUMNS.field("device_id").type)
        self._made.append(_batch(devices, self._arrivals_us, self._ids, self._rows))
        self._begin()


def _batch(devices: pa.Array, arrivals_us: Sequence[int], ids: Sequence[int], rows: Sequence[Row]) -> pa.RecordBatch:
    _, times, *rest = zip(*rows, strict=True)  # the first column is the layout's version
    values = (times, arrivals_us, ids, *rest)
    made = [array_of(column, field.type) for column, field in zip(values, _AFTER_DEVICE, strict=True)]
    return pa.record_batch([devices, *made], schema=COLUMNS)


def columns(blocks: Iterable[Block]) -> pa.Table:
    """Records as an Arrow table of `COLUMNS`, in the order of their blocks."""
    result = Columns()
    for block in blocks:
        result.add(block)
    return result.table()


def days_of(records: pa.Table) -> list[tuple[date, pa.Table]]:
    """The records per day, oldest first."""
    number = pc.divide(records.column("timestamp").cast(pa.int64()), DAY_US)
    numbers = sorted(pc.unique(number).to_pylist())
    if len(numbers) == 1:
        return [(day_of(numbers[0] * DAY_US), records)]
    return [(day_of(day * DAY_US), records.filter(pc.equal(number, day))) for day in numbers]


def is_sorted(records: pa.Table) -> bool:
    """True if records are sorted by device, timestamp and id."""
    if records.num_rows < 2:
        return True
    rises: Any = True
    for name in reversed(ORDER):
        column = records.column(name)
        current, next_one = column.slice(0, len(column) - 1), column.slice(1)
        rises = pc.or_(pc.less(current, next_one), pc.and_(pc.equal(current, next_one), rises))
    return pc.all(rises).as_py()  # type: ignore[no-any-return]


def in_order(records: pa.Table) -> pa.Table:
    """The records sorted by device, timestamp and id. In one chunk, because gathering rows from many chunks is slow."""
    rows = records.unify_dictionaries().combine_chunks()
    devices = rows.column("device_id").combine_chunks()
    if not pa.types.is_dictionary(devices.type):
        devices = devices.dictionary_encode()
    ranks = pc.array_sort_indices(pc.array_sort_indices(devices.dictionary))
    keys = pa.table([ranks.take(devices.indices), *(rows.column(name) for name in ORDER[1:])], names=list(ORDER))
    return only_used(rows.take(pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in ORDER])))


def only_used(records: pa.Table) -> pa.Table:
    """The records with unused devices removed from the dictionary.

    Arrow writes the whole dictionary into each row group, and concatenates the dictionaries of slices, which would slow
    down a merge of many devices.
    """
    at = records.schema.get_field_index("device_id")
    if not records.num_rows or not pa.types.is_dictionary(records.schema.field(at).type):
        return records
    devices = records.unify_dictionaries().column(at).combine_chunks()
    used = devices.indices.dictionary_encode()
    dictionary = pa.DictionaryArray.from_arrays(used.indices, devices.dictionary.take(used.dictionary))
    return records.set_column(at, records.schema.field(at), dictionary)


def least_and_greatest(records: pa.Table, name: str) -> tuple[Any, Any]:
    """Minimum and maximum of a column; times in µs since the epoch."""
    column = records.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.unique().cast(column.type.value_type)
    bounds = pc.min_max(column.cast(pa.int64()) if column.type == TIME else column)
    return bounds["min"].as_py(), bounds["max"].as_py()


def sql_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def seen_sql(imported: Iterable[range] = ()) -> str:
    """SQL of the time at which a record shows that its device was active: its arrival, or for imports the measurement.

    `imported` are ids of imported records whose transport is not `import` (`Archive.imported_otherwise`).
    """
    is_imported = " OR ".join(["transport = 'import'", *map(has_id_sql, imported)])
    return f"CASE WHEN {is_imported} THEN {MEASURED_SQL} ELSE received_at END"


def has_id_sql(ids: range) -> str:
    """SQL condition: a record has one of some ids."""
    return f"(id >= {ids.start} AND id < {ids.stop} AND id % {ids.step} = {ids.start % ids.step})"


def time_sql(us: str) -> str:
    """SQL of a time as text, 2026-11-24T10:25:00.000000Z, given SQL of its µs since the epoch."""
    return f"strftime(make_timestamp({us}), '{SQL_FORMAT}')"


def file_name(kind: str, token: str, layout: int = LAYOUT) -> str:
    """Name of a new file. It contains the layout, from the second on."""
    return f"{kind}-{token}{f'.v{layout}' if layout > 1 else ''}.parquet"


def layout_of(path: str) -> int:
    """The layout of a file, from its name."""
    match = re.search(r"\.v(\d+)\.parquet$", path)
    return int(match[1]) if match else 1


def records_sql(paths: Sequence[str]) -> str:
    """A DuckDB table expression with all columns of some files. Columns missing in files of an older layout are null.

    Files of one layout are read faster.
    """
    listed = f"read_parquet([{', '.join(map(sql_text, paths))}], hive_partitioning = false"
    if all(layout_of(path) == LAYOUT for path in paths):
        return f"{listed})"
    names = ", ".join(COLUMNS.names)
    return f"(SELECT {names} FROM (SELECT * FROM {listed}, union_by_name = true) UNION ALL BY NAME {nothing_sql()}))"


def nothing_sql() -> str:
    """A DuckDB query with all columns and no rows."""
    types = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE"}
    nulls = (f"NULL::{types.get(str(field.type), 'TIMESTAMPTZ')} AS {field.name}" for field in COLUMNS)
    return f"(SELECT {', '.join(nulls)} WHERE false)"


def open_duckdb(temp_dir: Path | None = None, memory_limit: str = "1GB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB in UTC without network access."""
    connection = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "async_threads": 1,  # each of the default eight keeps memory, and local files do not need them
            "autoinstall_known_extensions": False,
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET allocator_background_threads = true")  # returns memory seconds after its use
    if temp_dir is not None:
        make_folder(temp_dir.parent, 0o700)
        make_folder(temp_dir, 0o700)
        connection.execute(f"SET temp_directory = {sql_text(str(temp_dir))}")
    return connection


def with_memory(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], most_bytes: int) -> T:
    """Do `work`; if it runs out of memory, repeat it with twice the limit, up to `most_bytes`.

    Sorting spills rows to disk, but not their long texts. Raises `duckdb.OutOfMemoryException` beyond `most_bytes`.
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
    """Parse a size in DuckDB's format, such as `96.0 MiB`."""
    number, unit = size.split()
    return round(float(number) * 1024.0 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))
