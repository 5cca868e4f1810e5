"""Sizes of the texts of records, which limit row groups, pages and responses."""

from __future__ import annotations

from collections.abc import Callable

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
    return pc.fill_null(of_texts(column, _length, pa.int64()), 0)


def _length(texts: pa.Array) -> pa.Array:
    return pc.binary_length(texts).cast(pa.int64())


def of_texts(column: pa.ChunkedArray, compute: Callable[[pa.Array], pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    """Compute a value of each text; of a dictionary, once for each text in it. Nulls stay null."""
    if not pa.types.is_dictionary(column.type):
        return pa.chunked_array([compute(chunk) for chunk in column.chunks], kind)
    return pa.chunked_array([compute(chunk.dictionary).take(chunk.indices) for chunk in column.chunks], kind)
