"""Sizes of the texts of records, which limit row groups, pages and responses."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

TEXTS = ("location", "attributes")
"""Columns whose texts may be long."""

TEXT_BYTES_SQL = " + ".join(f"coalesce(strlen({name}), 0)" for name in TEXTS)
"""SQL of the bytes of a record's texts."""


def text_bytes(records: pa.Table) -> pa.ChunkedArray:
    """Bytes of each record's texts, as int64; the columns may be dictionaries."""
    sizes: pa.ChunkedArray = pc.add(*(_lengths(records.column(name)) for name in TEXTS))
    return sizes


def fitting_rows(records: pa.Table, most: int) -> int:
    """Number of the first records whose texts have at most `most` bytes together; at least one, if there are any."""
    if sum(_at_most(records.column(name)) for name in TEXTS) <= most:
        return int(records.num_rows)
    return fitting(text_bytes(records), most)


def fitting(sizes: pa.ChunkedArray, most: int) -> int:
    """`fitting_rows`, given the size of each record's texts."""
    if (pc.sum(sizes).as_py() or 0) <= most:
        return len(sizes)
    rows: int = pc.sum(pc.less_equal(pc.cumulative_sum(sizes), most)).as_py()
    return max(1, rows)


def _at_most(column: pa.ChunkedArray) -> int:
    """Upper bound of the size of a column's texts, bytes, computed without reading each."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return sum(len(chunk) * int(chunk.dictionary.nbytes) for chunk in column.chunks)


def _lengths(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        return _known(pc.binary_length(column))
    lengths = [_known(pc.binary_length(chunk.dictionary)).take(chunk.indices) for chunk in column.chunks]
    return _known(pa.chunked_array(lengths, pa.int64()))


def _known(lengths: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The lengths with nulls replaced by 0."""
    return pc.fill_null(lengths.cast(pa.int64()), 0)
