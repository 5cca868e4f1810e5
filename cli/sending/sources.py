"""From a file of positions to the JSON objects that a collector takes, each with the line it stands on.

One line at a time, so a file may be of any size. A line that can't be read is a value (`Unreadable`)
and the next one follows; a file that can't be read on is a `SenderError`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

import msgspec

from telemetry.codec.record_parser import field_of
from telemetry.model.errors import SenderError

MAX_LINE_BYTES = 2**20
"""Longest line. A collector takes no larger record, and a file without newlines must not fill the memory."""

BOM = b"\xef\xbb\xbf"
"""What some spreadsheets write before the header."""


class Row(NamedTuple):
    """One record: the line that it begins on, and its JSON object."""

    line: int
    body: bytes


class Unreadable(NamedTuple):
    """A line that holds no record."""

    line: int
    reason: str


class Naming(NamedTuple):
    """What a file's columns mean.

    `columns` maps a record's name to the file's column; all other columns keep their own names.
    `time_format` is how the timestamp is written (`strptime`; no zone is UTC), if not as the collector reads it.
    """

    columns: Mapping[str, str] = {}
    time_format: str | None = None

    def names(self) -> dict[str, str]:
        """From the file's column to the record's name."""
        names: dict[str, str] = {}
        for name, column in self.columns.items():
            if column in names:
                raise SenderError(f"cannot map column {column!r} twice, to {names[column]!r} and to {name!r}")
            names[column] = name
        return names


Rows = Iterator[Row | Unreadable]

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_ndjson(file: BinaryIO, file_name: str, naming: Naming) -> Rows:
    """One JSON object a line; blank lines count but hold nothing. A mapped key may be absent here and there."""
    names = naming.names()
    never_seen = set(names)
    for line, content in enumerate(map(bytes.strip, _lines(file, file_name)), 1):
        if not content:
            continue
        try:
            content.decode()
            values = _decode_object(content)
        except (ValueError, RecursionError) as error:
            yield Unreadable(line, f"not a JSON object: {error}")
            continue
        never_seen.difference_update(values)
        yield _rename(line, values, names, naming.time_format) if naming != PLAIN else Row(line, content)
    if never_seen:
        raise SenderError(
            f"{file_name}: no line has {min(never_seen)!r}, which is mapped to {names[min(never_seen)]!r}"
        )


def _rename(
    line: int, values: dict[str, msgspec.Raw], names: dict[str, str], time_format: str | None
) -> Row | Unreadable:
    record: dict[str, object] = {}
    for key, value in values.items():
        name = names.get(key, key)
        if name in record:
            return Unreadable(line, f"{name}: named twice, the second time by {key!r}")
        record[name] = value
        if time_format is not None and field_of(name) == "timestamp" and bytes(value) != b"null":
            try:
                record[name] = iso_time(_decode_text(value), time_format)
            except ValueError as error:  # msgspec's are ValueErrors too
                return Unreadable(line, f"{name}: {error}")
    return Row(line, _encode(record))


def read_csv(file: BinaryIO, file_name: str, naming: Naming) -> Rows:
    """A header, then one record a row: cells as text, empty ones left out."""
    reader = csv.reader(_text_lines(file, file_name), strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise SenderError(f"{file_name}, line 1: {error}") from None
    if not header:
        raise SenderError(f"{file_name}, line 1: no header")
    names = name_columns(header, naming, f"{file_name}, line 1")
    time = next((i for i, name in enumerate(names) if field_of(name) == "timestamp"), None)
    if naming.time_format is not None and time is None:
        raise SenderError(f"{file_name}, line 1: a time format is given, but no column is the timestamp")
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Unreadable(line, str(error))
            continue
        if cells is None:
            return
        if cells:
            yield _csv_row(line, cells, names, time, naming.time_format)


def name_columns(header: list[str], naming: Naming, where: str) -> list[str]:
    """The record's name for each column. Raises `SenderError` if one is missing, or two mean one field."""
    mapped = naming.names()
    for column, name in mapped.items():
        if column not in header:
            raise SenderError(
                f"{where}: no column {column!r}, which is mapped to {name!r}; there are {', '.join(header)}"
            )
    names = [mapped.get(column, column) for column in header]
    columns: dict[str, str] = {}
    for column, name in zip(header, names, strict=True):
        field = field_of(name) or name
        if field in columns:
            hint = f"--map another_name={column}"
            raise SenderError(f"{where}: columns {columns[field]!r} and {column!r} both mean {field!r}; try {hint}")
        columns[field] = column
    return names


def _csv_row(
    line: int, cells: list[str], names: list[str], time: int | None, time_format: str | None
) -> Row | Unreadable:
    if len(cells) != len(names):
        return Unreadable(line, f"{len(cells)} cells, the header has {len(names)}")
    if time is not None and time_format is not None and cells[time]:
        try:
            cells[time] = iso_time(cells[time], time_format)
        except ValueError as error:
            return Unreadable(line, f"{names[time]}: {error}")
    return Row(line, _encode({name: cell for name, cell in zip(names, cells, strict=True) if cell}))


def iso_time(text: str, time_format: str) -> str:
    """ISO 8601 of a time in another form; no zone is UTC. Raises `ValueError`."""
    moment = datetime.strptime(text, time_format)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _lines(file: BinaryIO, file_name: str) -> Iterator[bytes]:
    number = 0
    while content := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(content) > MAX_LINE_BYTES:
            raise SenderError(
                f"{file_name}, line {number}: longer than {MAX_LINE_BYTES} bytes, nothing behind it is read"
            )
        yield content.removeprefix(BOM) if number == 1 else content


def _text_lines(file: BinaryIO, file_name: str) -> Iterator[str]:
    for number, content in enumerate(_lines(file, file_name), 1):
        try:
            yield content.decode()
        except UnicodeDecodeError as error:
            raise SenderError(
                f"{file_name}, line {number}: not UTF-8 text, nothing behind it is read: {error}"
            ) from None


PLAIN = Naming()
"""All columns keep their names, all values their form."""

READERS: dict[str, Callable[[BinaryIO, str, Naming], Rows]] = {
    "ndjson": read_ndjson,
    "csv": read_csv,
}

ENDINGS = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
"""The format that a file's ending tells."""

PRESETS: dict[str, Naming] = {
    "buses": Naming({"device_id": "vehicle_id"}),
    "ships": Naming({"device_id": "ID", "timestamp": "ais_pos_timestamp"}, "%d/%m/%Y %H:%M"),
}
"""CSV files that are known by name."""
