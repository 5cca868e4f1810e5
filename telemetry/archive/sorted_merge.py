"""Merges sorted files slice by slice, with limited memory whatever the size of a day.

A slice has all rows up to the minimum of the last keys read from each file; unread rows cannot belong to it. DuckDB
does not know that its input is sorted and needs several times the CPU (docs/performance.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.archive.parquet_writer import has_dictionary
from telemetry.archive.schema import COLUMNS, ORDER, in_order

LEAST_ROWS, MOST_ROWS = 64, 4_096
"""Rows of a file per read."""

READ_BYTES = 2**24
"""Memory limit for the rows read of all files, bytes, as far as it is known in advance: long texts reduce the rows."""

OFTEN_THE_SAME = ("device_id", "transport", "source")
SCHEMA = pa.schema(
    [pa.field(f.name, pa.dictionary(pa.int32(), f.type)) if f.name in OFTEN_THE_SAME else f for f in COLUMNS]
)
"""`COLUMNS`, with dictionaries for some, which makes moving rows faster."""

Key = tuple[str, int, int]
"""Device, timestamp in µs since the epoch, id: the order of `ORDER`."""


class NotSorted(Exception):
    """A file's rows are not sorted."""


def merged(paths: Sequence[str]) -> Iterator[pa.Table]:
    """All rows of some files, slice by slice in sorted order, as tables of `SCHEMA`.

    All files stay open meanwhile. Raises `NotSorted` if a slice does not follow the previous one.
    """
    runs = [_Run(path, READ_BYTES // len(paths)) for path in paths]
    last_key: Key | None = None
    while True:
        for run in runs:
            run.read_on()
        ends = [run.last() for run in runs if run.has_more]
        cut = min(ends) if ends else None
        parts = [batch for run in runs for batch in run.up_to(cut)]
        if not parts:
            return
        rows = in_order(pa.Table.from_batches(parts))
        if last_key is not None and _key(rows, 0) < last_key:
            raise NotSorted
        last_key = _key(rows, rows.num_rows - 1)
        yield rows


def ahead(slices: Iterator[pa.Table]) -> Generator[pa.Table]:
    """The same slices, each prepared in a thread while the previous one is used."""
    with ThreadPoolExecutor(1, "merging") as thread:
        following = thread.submit(next, slices, None)
        while (rows := following.result()) is not None:
            following = thread.submit(next, slices, None)
            yield rows


def cut(slices: Iterable[pa.Table], cuts: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    """Slices with the number of the piece that each belongs to. `cuts`, in ascending order, are the row numbers at
    which further pieces begin; a slice across a cut is split."""
    number = begin = 0
    for rows in slices:
        end = begin + rows.num_rows
        while number < len(cuts) and cuts[number] < end:
            yield number, rows.slice(begin - end + rows.num_rows, cuts[number] - begin)
            begin, number = cuts[number], number + 1
        yield number, rows.slice(begin - end + rows.num_rows)
        begin = end


class _Run:
    """A file's rows, some of them in memory."""

    def __init__(self, path: str, share_bytes: int) -> None:
        self._share_bytes = share_bytes
        self._unread = _batches(path, share_bytes)
        self._held: deque[pa.RecordBatch] = deque()
        self.has_more = True

    def read_on(self) -> None:
        """Read until enough rows are in memory, or all remaining ones."""
        while self.has_more and not self._has_enough():
            batch = next(self._unread, None)
            if batch is None:
                self.has_more = False
            else:
                self._held.append(batch)

    def _has_enough(self) -> bool:
        rows = sum(batch.num_rows for batch in self._held)
        return rows >= MOST_ROWS or sum(int(batch.nbytes) for batch in self._held) >= self._share_bytes

    def last(self) -> Key:
        """Key of the last row in memory."""
        return _key(self._held[-1], self._held[-1].num_rows - 1)

    def up_to(self, cut: Key | None) -> Iterator[pa.RecordBatch]:
        """Remove and return the rows in memory up to `cut`; all if it is None."""
        while self._held:
            batch = self._held.popleft()
            rows = batch.num_rows if cut is None else _rows_up_to(batch, cut)
            if rows:
                yield batch.slice(0, rows)
            if rows < batch.num_rows:
                self._held.appendleft(batch.slice(rows))
                return


def _batches(path: str, share_bytes: int) -> Iterator[pa.RecordBatch]:
    """A file's rows as `SCHEMA`; missing columns are null."""
    metadata = pq.read_metadata(path)
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=_as_dictionaries(metadata)) as file:
        row_bytes = 1.0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            row_bytes = max(row_bytes, group.total_byte_size / max(group.num_rows, 1))
            rows = min(max(int(share_bytes / row_bytes), LEAST_ROWS), MOST_ROWS)
            for batch in file.iter_batches(rows, row_groups=[number], use_threads=False):
                if batch.num_rows:
                    yield _as_schema(batch)
                    row_bytes = batch.nbytes / batch.num_rows


def _as_dictionaries(metadata: pq.FileMetaData) -> list[str]:
    """Columns that Arrow can read as dictionaries, because the file (perhaps by DuckDB) stores them as such."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    indexes = {name: COLUMNS.get_field_index(name) for name in OFTEN_THE_SAME}
    return [name for name, at in indexes.items() if all(has_dictionary(group.column(at)) for group in groups)]


def _as_schema(batch: pa.RecordBatch) -> pa.RecordBatch:
    if batch.schema.equals(SCHEMA):
        return batch
    return pa.record_batch([_column(batch, field) for field in SCHEMA], schema=SCHEMA)


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(field.name)
    if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
        return column.dictionary_encode()
    return column.cast(field.type)


def _key(rows: pa.RecordBatch | pa.Table, number: int) -> Key:
    device_id, timestamp, record_id = (rows.column(name)[number] for name in ORDER)
    return device_id.as_py(), timestamp.value, record_id.as_py()


def _rows_up_to(batch: pa.RecordBatch, cut: Key) -> int:
    """Number of rows up to `cut`."""
    if _key(batch, batch.num_rows - 1) <= cut:
        return int(batch.num_rows)
    return bisect_right(range(batch.num_rows), cut, key=lambda number: _key(batch, number))
