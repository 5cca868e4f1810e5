"""CSV by RFC 4180: a header, lines that end in CRLF, quotes where a text requires them.

`FORMAT`, for programs, leaves a text that begins with = + - or @ unchanged. `SAFE` prevents spreadsheets from running
it as a formula (spreadsheet.py).
"""

from __future__ import annotations

import pyarrow as pa

from api.formats.format import Format
from api.formats.spreadsheet import safe_sql
from api.formats.text_lines import iso, lines
from telemetry.archive.schema import COLUMNS, TIME


def _quoted(name: str) -> str:
    return f"'\"' || replace({name}, '\"', '\"\"') || '\"'"


def _text(name: str) -> str:
    """SQL of a text. An empty text is quoted, because an empty field without quotes means null."""
    needs_quotes = " OR ".join(f"contains({name}, {special})" for special in ("','", "'\"'", "chr(10)", "chr(13)"))
    return f"CASE WHEN {name} = '' OR {needs_quotes} THEN {_quoted(name)} ELSE {name} END"


def _value(name: str, is_safe: bool) -> str:
    column = COLUMNS.field(name)
    if is_safe and column.type == pa.string():
        return _quoted(f"({safe_sql(name)})")
    if name == "attributes":  # always quoted: JSON usually contains quotes
        return _quoted(name)
    if column.type == TIME:
        return iso(name)
    return _text(name) if column.type == pa.string() else name


def _format(is_safe: bool) -> Format:
    values = ", ',', ".join(_value(name, is_safe) for name in COLUMNS.names)
    return Format(
        ("text/csv",),
        "csv",
        lines(f"concat({values}, chr(13), chr(10))", head=",".join(COLUMNS.names) + "\r\n"),
        parameters="; charset=utf-8; header=present",
    )


FORMAT = _format(is_safe=False)
SAFE = _format(is_safe=True)
"""CSV for spreadsheets: no text can become a formula."""
