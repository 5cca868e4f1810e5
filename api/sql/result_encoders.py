"""What an answer in SQL is written as: JSON, CSV or Arrow, cut at so many rows and bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from api.formats.arrow import zero_nulls
from api.formats.spreadsheet import safe

BATCH_ROWS = 1_024

_ENCODER = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


class Written(NamedTuple):
    """An answer's bytes, and whether rows are missing from it."""

    data: bytes
    is_truncated: bool


class _Cut:
    """The rows of a reader, some at a time, until there are too many of them."""

    def __init__(self, batches: pa.RecordBatchReader, max_rows: int, max_bytes: int) -> None:
        self._batches, self._left, self.max_bytes = batches, max_rows, max_bytes
        self.schema: pa.Schema = batches.schema
        self.is_truncated = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.is_truncated = batch.num_rows > self._left
            found = batch.slice(0, self._left)
            self._left -= found.num_rows
            if found.num_rows:
                yield found
            if self.is_truncated:
                return

    def lines(self, line: Callable[[tuple[Any, ...]], bytes], head: bytes = b"", end: bytes = b"") -> Iterator[bytes]:
        """Rows as bytes, each with what is between them, as many as there is room for behind a head."""
        size = len(head)
        for batch in self:
            columns = [_values(column) for column in batch.columns]
            for row in zip(*columns, strict=True):
                data = line(row) + end
                size += len(data)
                if size > self.max_bytes:
                    self.is_truncated = True
                    return
                yield data


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    values = column.to_pylist()
    return [_shown(value) for value in values] if _may_have_times(column.type) else values


def _may_have_times(kind: pa.DataType) -> bool:
    return pa.types.is_temporal(kind) or pa.types.is_nested(kind)  # type: ignore[no-any-return]


def _shown(value: Any) -> Any:
    """A value with its times as texts, which all have six digits of fraction. A moment is in UTC; one without a zone
    stays without."""
    if isinstance(value, datetime):
        moment = value if value.tzinfo is None else value.astimezone(UTC)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, time):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value


def json(rows: pa.RecordBatchReader, kinds: list[str], max_rows: int, max_bytes: int) -> Written:
    """`{"columns": [{"name", "type"}], "rows": [[…]], "truncated"}`; types are DuckDB's."""
    cut = _Cut(rows, max_rows, max_bytes)
    columns = [{"name": name, "type": kind} for name, kind in zip(cut.schema.names, kinds, strict=True)]
    head = b'{"columns":' + _ENCODER.encode(columns) + b',"rows":['
    found = b",".join(cut.lines(_ENCODER.encode, head, b""))
    return Written(head + found + b'],"truncated":' + _ENCODER.encode(cut.is_truncated) + b"}", cut.is_truncated)


def csv(rows: pa.RecordBatchReader, _kinds: list[str], max_rows: int, max_bytes: int) -> Written:
    """As RFC 4180 has it, with a header. Nothing at all is null; lists and structs are JSON."""
    return _csv(rows, max_rows, max_bytes, _line)


def csv_safe(rows: pa.RecordBatchReader, _kinds: list[str], max_rows: int, max_bytes: int) -> Written:
    """The same for spreadsheets: no text is a formula."""
    return _csv(rows, max_rows, max_bytes, _safe_line)


def _csv(
    rows: pa.RecordBatchReader, max_rows: int, max_bytes: int, line: Callable[[tuple[Any, ...]], bytes]
) -> Written:
    cut = _Cut(rows, max_rows, max_bytes)
    head = line(tuple(cut.schema.names)) + b"\r\n"
    return Written(head + b"".join(cut.lines(line, head, b"\r\n")), cut.is_truncated)


def _line(row: tuple[Any, ...]) -> bytes:
    return ",".join(map(_cell, row)).encode()


def _safe_line(row: tuple[Any, ...]) -> bytes:
    return ",".join(map(_safe_cell, row)).encode()


def _cell(value: Any) -> str:
    if value is None or _is_number(value):
        return _plain(value)
    text = _plain(value)
    needs = text == "" or any(one in text for one in ',"\r\n')
    return _quoted(text) if needs else text


def _safe_cell(value: Any) -> str:
    if value is None or _is_number(value):
        return _plain(value)
    return _quoted(safe(_plain(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _plain(value: Any) -> str:
    """A value's text, before anything is quoted."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if _is_number(value):
        return repr(value) if isinstance(value, float) else str(value)
    text = _ENCODER.encode(value).decode()
    return text[1:-1] if text.startswith('"') else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def arrow(rows: pa.RecordBatchReader, _kinds: list[str], max_rows: int, max_bytes: int) -> Written:
    """Arrow's IPC stream."""
    cut, out = _Cut(rows, max_rows, max_bytes), io.BytesIO()
    with pa.ipc.new_stream(out, cut.schema) as writer:
        for batch in cut:
            if out.tell() + batch.nbytes > max_bytes:
                cut.is_truncated = True
                break
            writer.write_batch(zero_nulls(batch))
    return Written(out.getvalue(), cut.is_truncated)


FORMS: dict[str, Callable[[pa.RecordBatchReader, list[str], int, int], Written]] = {
    "json": json,
    "csv": csv,
    "csv_safe": csv_safe,
    "arrow": arrow,
}
