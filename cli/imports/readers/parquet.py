"""Parquet, of Whimbrel's or anybody's: typed columns to rows, a part of a row group in memory at a time."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cli.imports.rows.column_parser import Rows
from cli.imports.rows.reader import PIECE_ROWS, Pieces
from cli.imports.rows.row_parser import OWN, Judge, plain
from cli.imports.rows.source import Source
from telemetry.codec.record_parser import NAMES
from telemetry.model.errors import SenderError

READ_ROWS = 8 * PIECE_ROWS
FAULTS = (pa.ArrowException, OSError)


def read(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`. Raises `SenderError` if it isn't Parquet, or is broken."""
    if source.is_compressed:
        raise SenderError(f"cannot read {source.name}: Parquet can't be read from a compressed file; unpack it first")
    try:
        file = pq.ParquetFile(source.raw, pre_buffer=False)
        yield from _read(file, source, judge)
    except FAULTS as error:
        raise SenderError(f"cannot read {source.name}: {error}") from None


def _read(file: pq.ParquetFile, source: Source, judge: Judge) -> Pieces:
    columns = file.schema_arrow.names
    is_own = OWN.issubset(columns)
    names = dict(zip(columns, judge.names(columns, source.name), strict=True))
    wanted = [column for column in columns if names[column] is not None and not (is_own and column == "geometry")]
    called = [names[name] or name for name in wanted]
    rows, row = Rows(judge, called, None, lambda row: f"row {row}", is_own), 0
    for batch in file.iter_batches(READ_ROWS, columns=wanted):
        columns_wanted = [batch.column(name) for name in wanted]  # `a.b` also selects the field b of a column a
        values = [_converted(column, name, judge, source) for name, column in zip(called, columns_wanted, strict=True)]
        for cells in zip(*values, strict=True):
            row += 1
            rows.add(row, cells)
            yield from rows.full()
    yield from rows.rest()


def _converted(column: pa.Array, name: str, judge: Judge, source: Source) -> list[object]:
    """As `_values`. Raises `SenderError` for what Python has no value for: text that is not UTF-8, a field twice."""
    try:
        return _values(column, name, judge)
    except FAULTS:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise SenderError(f"cannot read {source.name}: column {name!r}: {error}") from None


def _values(column: pa.Array, name: str, judge: Judge) -> list[object]:
    """A column's values as a sender would have said them: times of the timestamp in ms, all others as JSON has them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) and NAMES.get(name) == "timestamp":
        return _moments(column, judge)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None) if name not in NAMES else _without_nan(column)
        return column.to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return [None if text is None else text.replace(" ", "T") for text in column.cast(pa.string()).to_pylist()]
    if pa.types.is_string(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    return [plain(value) for value in column.to_pylist()]


def _without_nan(column: pa.Array) -> pa.Array:
    """NaN is how some tools write that a number is unknown; infinity is a fault."""
    return pc.if_else(pc.is_nan(column), None, column)


def _moments(column: pa.Array, judge: Judge) -> list[object]:
    """ms since the epoch, with a fraction. A column without a zone is of the zone that was named, else UTC."""
    if column.type.tz is None and judge.naming.zone is not None:
        column = pc.assume_timezone(column.cast(pa.timestamp("us"), safe=False), str(judge.naming.zone))
    return [
        None if us is None else us / 1_000
        for us in column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_pylist()
    ]
