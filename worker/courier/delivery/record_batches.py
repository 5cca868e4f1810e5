"""Reads records from the archive's files and encodes them: as JSON like the API, or for a collector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.archive.added_file import NewFile
from telemetry.archive.schema import COLUMNS, TIME
from telemetry.model.utc import iso

READ_ROWS = 1_024
"""Rows converted to Python objects at a time."""

Row = dict[str, Any]
Encode = Callable[[Row], bytes]
"""Encodes a record for a receiver."""

TAKEN = (
    "device_id",
    "timestamp",
    "latitude",
    "longitude",
    "altitude_m",
    "speed_kmh",
    "heading_deg",
    "accuracy_m",
    "location",
    "attributes",
)
"""Columns that are sent to a collector; it sets `id`, `received_at`, `transport` and `source` itself."""

LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**64 - 1
"""Range of integers in msgpack."""

_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.json.decode


class Piece(NamedTuple):
    """Consecutive records: the index of the first, and the encoding of each."""

    first: int
    items: list[bytes]


def pieces(
    root: Path, files: Sequence[NewFile], skipped: int, encode: Encode, most_records: int, most_bytes: int
) -> Iterator[Piece]:
    """All records of `files` after the first `skipped`, in pieces that are the same each time.

    A piece has at most `most_bytes`, but at least one record.
    """
    first, items, size = skipped, list[bytes](), 0
    for row in _rows(root, files, skipped):
        item = encode(row)
        item_bytes = len(item) + 1
        if items and (len(items) == most_records or size + item_bytes > most_bytes):
            yield Piece(first, items)
            first, items, size = first + len(items), [], 0
        items.append(item)
        size += item_bytes
    if items:
        yield Piece(first, items)


def _rows(root: Path, files: Sequence[NewFile], skipped: int) -> Iterator[Row]:
    for file in files:
        with pq.ParquetFile(root / file.path) as parquet:
            rows = parquet.metadata.num_rows
            if skipped >= rows:
                skipped -= rows
                continue
            for batch in parquet.iter_batches(READ_ROWS, columns=COLUMNS.names, use_threads=False):
                if skipped < batch.num_rows:
                    yield from _of_batch(batch.slice(skipped))
                skipped = max(0, skipped - batch.num_rows)


def _of_batch(batch: pa.RecordBatch) -> Iterator[Row]:
    columns = []
    for name in COLUMNS.names:
        column = batch.column(name)
        is_time = COLUMNS.field(name).type == TIME
        columns.append([iso(us) for us in column.cast(pa.int64()).to_pylist()] if is_time else column.to_pylist())
    for values in zip(*columns, strict=True):
        yield dict(zip(COLUMNS.names, values, strict=True))


def json_line(row: Row) -> bytes:
    """A record as a line of NDJSON with all fields, as in the API. `attributes` are unchanged."""
    text = row["attributes"]
    return _encode_json({**row, "attributes": None if text is None else msgspec.Raw(_one_line(text).encode())})


def _one_line(text: str) -> str:
    """Remove line breaks, which JSON allows only between values."""
    return text.replace("\n", " ").replace("\r", " ")


def taken_msgpack(row: Row) -> bytes:
    """A record in a collector's frame format. Integers of more than 64 bits become text."""
    fields = {name: row[name] for name in TAKEN if row[name] is not None}
    if "attributes" in fields:
        fields["attributes"] = _decode_json(fields["attributes"])
    try:
        return _encode_msgpack(fields)
    except OverflowError:
        fields["attributes"] = _with_text(fields["attributes"])
        return _encode_msgpack(fields)


def _with_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_text(item) for item in value]
    return str(value) if type(value) is int and not LEAST_INTEGER <= value <= MOST_INTEGER else value
