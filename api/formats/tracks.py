"""What the formats of tracks have in common: only records that say where a device was, a track for each device in turn.

Records come by day and within it by device, so a device's track begins anew with each day on which others moved, too.
Which record begins one DuckDB tells by looking one row back, which it does while rows stream.
"""

from __future__ import annotations

import duckdb

from api.earth import PLACED
from api.formats.contract import Write
from api.formats.lines import lines


def xml_text(sql: str) -> str:
    """SQL of a text as XML has it; what XML can't say in any way is U+FFFD."""
    odd = "'[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x{fffe}\\x{ffff}]'"
    found = f"regexp_replace({sql}, {odd}, chr(65533), 'g')"
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        found = f"replace({found}, '{character}', '{name}')"
    return found


def tracks(head: str, begin: str, point: str, end: str, tail: str) -> Write:
    """What writes a file of tracks. `begin` and `point` are SQL of texts, the first of `device_id`; `end` is a text
    behind each track, `tail` one behind all."""
    changes = "device_id IS DISTINCT FROM previous_id"
    line = f"concat(CASE WHEN {changes} THEN '{end}' || {begin} ELSE '' END, {point})"
    write_lines = lines(line, head=head, joint=end, tail=end + tail, nothing=head + tail)

    def write(connection: duckdb.DuckDBPyConnection, records: str, file: int) -> int:
        placed = f"SELECT * FROM ({records}) WHERE {PLACED}"
        return write_lines(connection, f"SELECT *, lag(device_id) OVER () AS previous_id FROM ({placed})", file)

    return write
