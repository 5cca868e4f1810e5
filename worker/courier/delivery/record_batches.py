"""Records out of the archive's files as others read them: JSON like the API's, or what a collector takes."""

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
"""Rows that are Python objects at once."""

Row = dict[str, Any]
Encode = Callable[[Row], bytes]
"""The bytes of a record as a receiver gets it."""

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
"""What a collector takes of a record; it gives `id`, `received_at`, `transport` and `source` itself."""

LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**64 - 1
"""Msgpack knows no others."""

_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.json.decode


class Piece(NamedTuple):
    """Some records in a row: the place of the first, and each one's bytes."""

    first: int
    items: list[bytes]


def pieces(
    root: Path, files: Sequence[NewFile], skipped: int, encode: Encode, most_records: int, most_bytes: int
) -> Iterator[Piece]:
    """All records of `files` but the first `skipped`, in pieces that are the same each time.

    A piece ends before a record with which it would hold more than `most_bytes`, but it holds one.
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
    """A record as one line of NDJSON, all fields named, as the API shows it. `attributes` stay as they were sent."""
    text = row["attributes"]
    return _encode_json({**row, "attributes": None if text is None else msgspec.Raw(_one_line(text).encode())})


def _one_line(text: str) -> str:
    """JSON has line breaks between values alone."""
    return text.replace("\n", " ").replace("\r", " ")


def taken_msgpack(row: Row) -> bytes:
    """A record as a collector takes it in a frame. An integer of more than 64 bits becomes text, its digits."""
    found = {name: row[name] for name in TAKEN if row[name] is not None}
    if "attributes" in found:
        found["attributes"] = _decode_json(found["attributes"])
    try:
        return _encode_msgpack(found)
    except OverflowError:
        found["attributes"] = _with_text(found["attributes"])
        return _encode_msgpack(found)


def _with_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_text(item) for item in value]
    return str(value) if type(value) is int and not LEAST_INTEGER <= value <= MOST_INTEGER else value
