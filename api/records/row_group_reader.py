"""One device's records out of a file of the archive, straight from its row groups.

DuckDB parses a file's footer and plans anew for each question, some 2 ms, and decodes all columns of a row group, in
which a device has a thirtieth. Here footers are remembered, for a file never changes under its name; each says which
row groups may have the device; and of these the columns that differ are decoded in small pieces, from the page with its
first row up to its last. Of a file of a million records a thousand take 1.5 ms of CPU so, and 6 with DuckDB.

Neither the order of a file's rows nor that of its row groups is relied on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.records import rle_lookup
from api.records.page_skipping import BUFFER_BYTES, NotRead, WantedPages
from api.snapshot.file_memory import FileMemory
from telemetry.archive.parquet_writer import PAGE_ROWS, has_dictionary
from telemetry.archive.schema import COLUMNS
from telemetry.archive.text_bytes import TEXTS

FOOTERS_BYTES = 2**20
"""Footers that are remembered, as they lie in files; in memory they take eight times as much. A day's has 48 kB."""

PIECE_ROWS = 2_048
"""Rows decoded at once: few enough that the memory for them is used again and again."""

TEXT_THREAD_BYTES, TEXT_THREADS = 2**20, 2
"""Columns of texts with at least so many decoded bytes are read in another thread than the numbers, because they take
as long as all of these; and the number of such threads."""


_WORDS = ("transport", "source")
"""Texts that mostly are the same in a whole row group."""


class _Footer(NamedTuple):
    """A file's metadata, and for each row group its first and last device; None where it does not say."""

    metadata: pq.FileMetaData
    devices: list[tuple[str, str] | None]

    def groups_of(self, device_id: str) -> list[int]:
        """The row groups that may have the device's records."""
        return [n for n, ends in enumerate(self.devices) if ends is None or ends[0] <= device_id <= ends[1]]


class RowGroups:
    """Reads files of the archive's layout, from any number of threads. Raises what pyarrow raises."""

    def __init__(self) -> None:
        self._footers: FileMemory[str, _Footer] = FileMemory(FOOTERS_BYTES, lambda one: one.metadata.serialized_size)
        self._pool = ThreadPoolExecutor(TEXT_THREADS, thread_name_prefix="texts")

    def size_bytes(self, path: str, device_id: str) -> int:
        """Bytes that are decoded at most to read the device's records."""
        footer = self._footer(path)
        return sum(footer.metadata.row_group(group).total_byte_size for group in footer.groups_of(device_id))

    def read(self, path: str, device_id: str) -> pa.Table:
        """The device's records in a file, of `COLUMNS`, in the order that they have there. `TEXTS` may be dictionaries:
        a text that all rows have is in memory once."""
        footer = self._footer(path)
        found = [self._of_group(path, footer.metadata, group, device_id) for group in footer.groups_of(device_id)]
        if len(found) == 1:
            return found[0]
        return joined(found)

    def devices(self, path: str) -> list[bytes] | None:
        """The devices of a file, some of them more than once, and maybe others; None if its dictionaries don't say."""
        metadata = self._footer(path).metadata
        levels = metadata.schema.column(0).max_definition_level
        found: list[bytes] = []
        try:
            with pa.OSFile(path) as file:
                for group in range(metadata.num_row_groups):
                    found += rle_lookup.texts(file, metadata.row_group(group).column(0), levels)
        except NotRead:
            return None
        return found

    def _of_group(self, path: str, metadata: pq.FileMetaData, group: int, device_id: str) -> pa.Table:
        """What of a row group is the device's, in pieces that keep what was decoded with them, `PIECE_ROWS` at most."""
        chunks = {name: metadata.row_group(group).column(n) for n, name in enumerate(COLUMNS.names)}
        same = {name: value for name, chunk in chunks.items() for value in _same(name, chunk)}
        names = [name for name in COLUMNS.names if name not in same and name != "device_id"]
        dictionaries = [name for name in ("device_id", *_WORDS, *TEXTS) if has_dictionary(chunks[name])]
        one = _Group(path, metadata, group, chunks, dictionaries)
        places = one.places(device_id)
        if places is None:
            return COLUMNS.empty_table()
        long = [name for name in names if name in TEXTS and one.decoded_bytes(name, places) >= TEXT_THREAD_BYTES]
        texts = self._pool.submit(one.rows, long, places) if long else None
        found = one.rows([name for name in names if name not in long], places)
        return _whole(found if texts is None else [*found, *texts.result()], {"device_id": device_id, **same})

    def _footer(self, path: str) -> _Footer:
        found = self._footers.get(path)
        if found is None:
            metadata = pq.read_metadata(path)
            found = _Footer(metadata, [_ends(metadata.row_group(n)) for n in range(metadata.num_row_groups)])
            self._footers.put(path, found)
        return found


def _ends(group: pq.RowGroupMetaData) -> tuple[str, str] | None:
    found = group.column(0).statistics
    return (found.min, found.max) if found is not None and found.has_min_max else None


class _Places(NamedTuple):
    """Which rows of a row group: from the first up to the one before `behind`, all of them or some."""

    first: int
    behind: int
    some: pa.UInt64Array | None = None

    def of(self, pieces: Sequence[pa.RecordBatch]) -> pa.Table:
        """These of all rows from the first on."""
        found = pa.Table.from_batches(pieces)
        return found if self.some is None else found.take(pc.subtract(self.some, pa.scalar(self.first, pa.uint64())))


class _Group(NamedTuple):
    """A row group of a file, to be read by any thread, which opens the file for itself."""

    path: str
    metadata: pq.FileMetaData
    number: int
    chunks: Mapping[str, pq.ColumnChunkMetaData]
    dictionaries: Sequence[str]

    def places(self, device_id: str) -> _Places | None:
        """Where the device stands, None if nowhere."""
        with pa.OSFile(self.path) as file:
            try:
                levels = self.metadata.schema.column(0).max_definition_level
                found = rle_lookup.places(file, self.chunks["device_id"], levels, device_id)
                return _Places(found.start, found.stop) if found else None
            except NotRead:
                rows = self._places(file, device_id)
                return _Places(rows[0].as_py(), rows[-1].as_py() + 1, rows) if len(rows) else None

    def _places(self, file: pa.NativeFile, device_id: str) -> pa.UInt64Array:
        """The same, each row by itself. Of a dictionary only the places are compared, in a tenth of the time."""
        devices = self._opened(file).read_row_group(self.number, ["device_id"], use_threads=False).column(0)
        if not pa.types.is_dictionary(devices.type):
            return pc.indices_nonzero(pc.equal(devices, device_id))
        found = [pc.equal(chunk.indices, chunk.dictionary.index(device_id)) for chunk in devices.chunks]
        return pc.indices_nonzero(pa.chunked_array(found, pa.bool_()))

    def decoded_bytes(self, name: str, places: _Places) -> int:
        """How many bytes of a column are decoded, about, to have these rows."""
        rows = places.behind - places.first // PAGE_ROWS * PAGE_ROWS
        return int(self.chunks[name].total_uncompressed_size * rows // self.chunks[name].num_values)

    def rows(self, names: Sequence[str], places: _Places) -> list[pa.Table]:
        """Some columns of these rows: those together whose pages have the same rows."""
        beginning: dict[int, list[str]] = {}
        found = []
        with pa.OSFile(self.path) as file:
            wanted = WantedPages(file)
            for name in names:
                beginning.setdefault(wanted.begin(self.chunks[name], places.first), []).append(name)
            for begin, some in beginning.items():
                reader = self._opened(pa.PythonFile(wanted))
                found.append(places.of(_pieces(reader, self.number, some, places.first - begin, places.behind - begin)))
        return found

    def _opened(self, file: pa.NativeFile) -> pq.ParquetFile:
        """The file for Arrow to read in this thread, and no more than it needs."""
        return pq.ParquetFile(
            file,
            metadata=self.metadata,
            read_dictionary=self.dictionaries,
            pre_buffer=False,  # in threads of its own, to which the way is longer than what they read
            buffer_size=BUFFER_BYTES,
        )


def _same(name: str, chunk: pq.ColumnChunkMetaData) -> Iterator[str | None]:
    """The one value that a column has in a row group, if it is sure to have only one: none needs to be decoded."""
    said = chunk.statistics
    if said is None or not said.has_null_count:
        return
    if said.null_count == chunk.num_values:
        yield None
    elif name in _WORDS and said.null_count == 0 and said.has_min_max and said.min == said.max:
        yield said.min


def _pieces(reader: pq.ParquetFile, group: int, names: Sequence[str], first: int, behind: int) -> list[pa.RecordBatch]:
    """The rows of a row group from `first` up to the one before `behind`."""
    found, at = [], 0
    for piece in reader.iter_batches(PIECE_ROWS, [group], names, use_threads=False):
        if at + piece.num_rows > first:
            found.append(piece.slice(max(first - at, 0), behind - max(first, at)))
        at += piece.num_rows
        if at >= behind:
            break
    return found


def _whole(parts: Sequence[pa.Table], same: dict[str, str | None]) -> pa.Table:
    """Records of columns that were read apart, and of those that have the same value everywhere."""
    rows = parts[0].num_rows
    found = {name: column for part in parts for name, column in zip(part.column_names, part.columns, strict=True)}
    found |= {name: pa.repeat(pa.scalar(value, COLUMNS.field(name).type), rows) for name, value in same.items()}
    columns = [found[f.name] if f.name in TEXTS else _of_type(found[f.name], f.type) for f in COLUMNS]
    return pa.Table.from_arrays(columns, names=COLUMNS.names)


def plain(records: pa.Table) -> pa.Table:
    """Records whose texts are no dictionaries."""
    return pa.Table.from_arrays([_of_type(records.column(f.name), f.type) for f in COLUMNS], schema=COLUMNS)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Records of several tables, their texts as dictionaries if those of any are."""
    if not tables:
        return COLUMNS.empty_table()
    for name in TEXTS:
        at = COLUMNS.get_field_index(name)
        kinds = {table.schema.field(at).type for table in tables}
        if len(kinds) > 1:
            field = pa.field(name, next(filter(pa.types.is_dictionary, kinds)))
            tables = [table.set_column(at, field, _as_dictionary(table.column(at))) for table in tables]
    return pa.concat_tables(tables)


def _as_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _of_type(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """A column as it is in the archive's schema: of a dictionary the texts."""
    return column if column.type == wanted else column.cast(wanted)
