"""Where each device's hours lie in a file of the archive: remembered, so that no row's device or time is decoded again.

Of an hour of a file of a million records the times are 6 ms of CPU to decode, the devices 4, and the speeds, which are
what the question is about, 5. A file never changes under its name. So its runs are remembered, rows of one device and
one hour of UTC that follow one another: a thousand devices' day has 24,000, each 12 bytes. They are found in the time
of two questions, and then tell which rows a question by whole hours wants (whole_hours.py).

Neither the order of a file's rows nor that of its row groups is relied on: of a file in another order there are more
runs, and one that has many is not worth it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cachetools import LRUCache

from telemetry.columns import TIME

HOUR_US = 3_600_000_000

REMEMBERED_BYTES = 2**24
"""Of all files together, about; a thousand devices' day takes 0.7 MB, of which half is the footer."""

FOOTER_TIMES = 8
"""How much more than in its file a footer takes in memory."""

LEAST_RUN_ROWS = 8
"""A file in which runs have fewer rows, in the mean, is not worth it."""

BUFFER_BYTES = 2**16
"""What Arrow reads of a column at once."""

_NO_RUNS = pa.array([], pa.int32())


class FileHours(NamedTuple):
    """A file's runs, in the order of its rows: the device of each, by its place in `devices`, its hour since the epoch,
    and the row behind its last one."""

    path: str
    footer: pq.FileMetaData
    devices: pa.StringArray
    device: pa.Int32Array
    hour: pa.Int32Array
    ends: pa.Int32Array

    @property
    def is_worth_it(self) -> bool:
        return len(self.ends) > 0

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        arrays = (self.devices, self.device, self.hour, self.ends)
        return int(FOOTER_TIMES * self.footer.serialized_size + sum(array.nbytes for array in arrays))

    @property
    def rows(self) -> pa.Int32Array:
        """How many rows each run has."""
        before = pa.concat_arrays([pa.array([0], pa.int32()), self.ends.slice(0, len(self.ends) - 1)])
        return pc.subtract(self.ends, before)

    def groups(self) -> Iterator[tuple[int, int, int]]:
        """The row groups: number, first row, rows."""
        return _groups(self.footer)

    def opened(self, file: pa.NativeFile) -> pq.ParquetFile:
        """The file for Arrow to read in one thread."""
        return _opened(file, self.footer)


class Hours:
    """What is known of files, for any number of threads. Raises what pyarrow raises."""

    def __init__(self) -> None:
        self._known: LRUCache[str, FileHours] = LRUCache(REMEMBERED_BYTES, lambda one: one.bytes)
        self._lock = threading.Lock()

    def of(self, path: str) -> FileHours:
        """A file's, which is read if it is not known."""
        with self._lock:
            found = self._known.get(path)
        if found is None:
            found = _read(path)
            with self._lock:
                if found.bytes <= REMEMBERED_BYTES:
                    self._known[path] = found
        return found


def _read(path: str) -> FileHours:
    footer = pq.read_metadata(path)
    known: dict[str, int] = {}
    found: list[Sequence[pa.Array]] = []
    runs = 0
    with pa.OSFile(path) as file:
        reader = _opened(file, footer)
        for number, first, _ in _groups(footer):
            group = reader.read_row_group(number, ["device_id", "timestamp"], use_threads=False)
            found.append(_runs(group, first, known))
            runs += len(found[-1][0])
    if runs * LEAST_RUN_ROWS > footer.num_rows:
        return FileHours(path, footer, pa.array([], pa.string()), _NO_RUNS, _NO_RUNS, _NO_RUNS)
    device, hour, ends = (pa.concat_arrays(parts) for parts in zip(*found, strict=True))
    return FileHours(path, footer, pa.array(list(known), pa.string()), device, hour, ends)


def _runs(group: pa.Table, first: int, known: dict[str, int]) -> tuple[pa.Array, pa.Array, pa.Array]:
    """The devices, hours and ends of a row group's runs; devices that are new are numbered."""
    devices = group.column("device_id").unify_dictionaries().combine_chunks()
    hours = pc.divide(group.column("timestamp").cast(TIME).cast(pa.int64()), HOUR_US).cast(pa.int32()).combine_chunks()
    either = [pc.run_end_encode(values).run_ends for values in (devices.indices, hours)]
    ends = pc.unique(pa.concat_arrays(either)).sort()
    lasts = pc.subtract(ends, 1)
    numbers = pa.array([known.setdefault(device, len(known)) for device in devices.dictionary.to_pylist()], pa.int32())
    return numbers.take(devices.indices.take(lasts)), hours.take(lasts), pc.add(ends, pa.scalar(first, pa.int32()))


def _groups(footer: pq.FileMetaData) -> Iterator[tuple[int, int, int]]:
    first = 0
    for number in range(footer.num_row_groups):
        rows = footer.row_group(number).num_rows
        yield number, first, rows
        first += rows


def _opened(file: pa.NativeFile, footer: pq.FileMetaData) -> pq.ParquetFile:
    return pq.ParquetFile(
        file, metadata=footer, read_dictionary=["device_id"], pre_buffer=False, buffer_size=BUFFER_BYTES
    )
