"""CSV and its kin: a header, then one record a row. Cells are text, empty ones are left out."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from cli.imports.rows.column_parser import Rows
from cli.imports.rows.reader import Pieces
from cli.imports.rows.row_parser import OWN, Judge
from cli.imports.rows.source import MAX_LINE_BYTES, Source
from telemetry.model.errors import SenderError

DELIMITERS = ",;\t|"


def read(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`. Raises `SenderError` if the header can't be used."""
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = source.text_lines()
    first = next(lines, "")
    reader = csv.reader(_behind(first, lines), delimiter=source.delimiter or _delimiter(first), strict=True)
    header = _header(reader, source.name)
    names = judge.names(header, f"{source.name}, line 1")
    yield from _rows(reader, Rows(judge, names, "", lambda line: f"line {line}", OWN.issubset(header)), len(names))


def _rows(reader: Iterator[list[str]], rows: Rows, columns: int) -> Pieces:
    while True:
        line = reader.line_num + 1  # type: ignore[attr-defined]
        try:
            cells = next(reader, None)
        except csv.Error as error:
            rows.refuse(line, str(error), None)
            continue
        if cells is None:
            break
        if len(cells) == columns:
            rows.add(line, cells)
        elif cells:
            rows.refuse(line, f"{len(cells)} cells, the header has {columns}", cells)
        yield from rows.full()
    yield from rows.rest()


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise SenderError(f"{name}, line 1: {error}") from None
    if not header:
        raise SenderError(f"{name}, line 1: no header")
    return [column.strip() for column in header]


def _behind(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _delimiter(header: str) -> str:
    """The one of `DELIMITERS` that stands most often in a header, outside quotes; a comma where none does."""
    outside = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=outside.count)
