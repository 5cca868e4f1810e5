"""NDJSON: one JSON object per line, as in responses of `/v1/records`. The other JSON formats use its `MEMBERS`."""

from __future__ import annotations

import pyarrow as pa

from api.formats.format import Format
from api.formats.text_lines import iso, lines
from telemetry.archive.schema import COLUMNS, TIME


def _value(name: str) -> str:
    """SQL of a column's value: one or more arguments of `concat`. In `attributes`, a line break is only white space."""
    if name == "attributes":
        return f"coalesce(replace(replace({name}, chr(10), ' '), chr(13), ' '), 'null')"
    if COLUMNS.field(name).type == TIME:
        return f"'\"', {iso(name)}, '\"'"
    if COLUMNS.field(name).type == pa.string():
        return f"coalesce(CAST(to_json({name}) AS VARCHAR), 'null')"
    return f"coalesce(CAST({name} AS VARCHAR), 'null')"


MEMBERS = ", ',', ".join(f"'\"{name}\":', {_value(name)}" for name in COLUMNS.names)
"""Arguments of `concat` for all members of a record's object, without the braces."""

FORMAT = Format(
    ("application/x-ndjson", "application/ndjson", "application/jsonl"),
    "ndjson",
    lines(f"concat('{{', {MEMBERS}, '}}', chr(10))"),
)
