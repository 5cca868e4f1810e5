"""CSV and its kin: a header, then one record a row. Cells are text, empty ones are left out."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from cli.imports.contract import Pieces, Pile
from cli.imports.judge import OWN, Judge
from cli.imports.source import MAX_LINE_BYTES, Source
from telemetry.errors import SenderError

DELIMITERS = ",;\t|"


def read(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`. Raises `SenderError` if the header can't be used."""
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = source.text_lines()
    first = next(lines, "")
    reader = csv.reader(_behind(first, lines), delimiter=source.delimiter or _delimiter(first), strict=True)
    header = _header(reader, source.name)
    names = judge.names(header, f"{source.name}, line 1")
    is_own = OWN.issubset(header)
    yield from _rows(reader, names, Pile(judge), is_own)


def _rows(reader: Iterator[list[str]], names: list[str | None], pile: Pile, is_own: bool) -> Pieces:
    kept = [(place, name) for place, name in enumerate(names) if name is not None]
    is_all = len(kept) == len(names)
    while True:
        line = reader.line_num + 1  # type: ignore[attr-defined]
        try:
            cells = next(reader, None)
        except csv.Error as error:
            pile.refuse(f"line {line}", str(error), None)
            continue
        if cells is None:
            break
        if len(cells) != len(names):
            if cells:
                pile.refuse(f"line {line}", f"{len(cells)} cells, the header has {len(names)}", cells)
        elif is_all:
            pile.add(f"line {line}", {n: cell for n, cell in zip(names, cells, strict=True) if cell}, is_own)  # type: ignore[misc]
        else:
            pile.add(f"line {line}", {name: cells[place] for place, name in kept if cells[place]}, is_own)
        yield from pile.full()
    yield from pile.rest()


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
