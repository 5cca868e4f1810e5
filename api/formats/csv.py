"""CSV as RFC 4180 has it: a header, lines that end in CRLF, quotes where a text needs them.

A text that begins with = + - or @ stays as it is: it is data, and no spreadsheet's formula. Times all have six digits
of fraction: readers that guess a column's form by its first value, as pandas does, stumble over two forms in one.
"""

from __future__ import annotations

import pyarrow as pa

from api.formats.contract import Format
from api.formats.lines import iso, lines
from telemetry.columns import COLUMNS, TIME


def _quoted(name: str) -> str:
    return f"'\"' || replace({name}, '\"', '\"\"') || '\"'"


def _text(name: str) -> str:
    """SQL of a text; an empty one is quoted, for nothing at all is null."""
    needs = " OR ".join(f"contains({name}, {one})" for one in ("','", "'\"'", "chr(10)", "chr(13)"))
    return f"CASE WHEN {name} = '' OR {needs} THEN {_quoted(name)} ELSE {name} END"


def _value(name: str) -> str:
    column = COLUMNS.field(name)
    if name == "attributes":  # has quotes in any case
        return _quoted(name)
    if column.type == TIME:
        return iso(name)
    return _text(name) if column.type == pa.string() else name


_VALUES = ", ',', ".join(map(_value, COLUMNS.names))

FORMAT = Format(
    ("text/csv",),
    "csv",
    lines(f"concat({_VALUES}, chr(13), chr(10))", head=",".join(COLUMNS.names) + "\r\n"),
    parameters="; charset=utf-8; header=present",
)
