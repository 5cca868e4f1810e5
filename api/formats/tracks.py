"""SQL for the formats of tracks: records with positions, and the starts of tracks and segments.

Records are ordered by device, then by time. Each device has one track. A new segment begins if the time between two
records exceeds the maximum gap, or if the device cannot have gone from one to the other: a line would show a route that
is not known. DuckDB compares each row with the previous row while it streams them.
"""

from __future__ import annotations

from api.formats.format import Segments
from api.geo.geo_sql import PLACED, haversine_km
from api.positions.plausible_sql import jump

_SMALLEST_PLAIN = 1e-4
"""DuckDB writes smaller numbers with an exponent, which XML's type decimal does not allow."""

BEGINS_TRACK = "(device_id IS DISTINCT FROM previous_id)"
"""SQL condition: the row is the first of its track. For rows of `positions`."""


def positions(records: str) -> str:
    """SQL of the records with a position, with device, time and place of the previous one: `previous_id`,
    `previous_us`, `previous_latitude`, `previous_longitude`."""
    columns = {"id": "device_id", "us": "epoch_us(timestamp)", "latitude": "latitude", "longitude": "longitude"}
    previous = ", ".join(f"lag({sql}) OVER () AS previous_{name}" for name, sql in columns.items())
    return f"SELECT *, {previous} FROM (SELECT * FROM ({records}) WHERE {PLACED})"


def begins_segment(segments: Segments) -> str:
    """SQL condition: the row is the first of its track, or the first after a gap or a jump."""
    us = "epoch_us(timestamp) - previous_us"
    is_jump = jump(haversine_km("previous_latitude", "previous_longitude"), us, segments.jumps)
    return f"({BEGINS_TRACK} OR {us} > {round(segments.max_gap_s * 1e6)} OR {is_jump})"


def xml_text(sql: str) -> str:
    """SQL of a text escaped for XML. Characters that XML cannot represent become U+FFFD."""
    invalid = "'[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x{fffe}\\x{ffff}]'"
    escaped = f"regexp_replace({sql}, {invalid}, chr(65533), 'g')"
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        escaped = f"replace({escaped}, '{character}', '{name}')"
    return escaped


def xml_decimal(sql: str) -> str:
    """SQL of a number as XML's type decimal: without an exponent; numbers near 0 have 12 decimals."""
    has_exponent = f"{sql} <> 0 AND abs({sql}) < {_SMALLEST_PLAIN}"
    return f"CASE WHEN {has_exponent} THEN format('{{:.12f}}', {sql}) ELSE CAST({sql} AS VARCHAR) END"
