"""SQL shared by the formats of tracks: records that say where a device was, and where a track or a segment begins.

The records come device by device, those of each in the order of time. A device is one track. A new segment of it begins
where more time than a gap's lies between two of these records: a line over the gap would show a way that nobody knows.
DuckDB sees both by looking one row back, which it does while rows stream.
"""

from __future__ import annotations

from api.geo.geo_sql import PLACED
from api.tracks.trip_detection import Rules

MAX_GAP_S = Rules().max_gap_s
"""The gap at which trips and stops end, too, unless a request says otherwise."""

_SMALLEST_PLAIN = 1e-4
"""DuckDB writes smaller numbers with an exponent, which XML's decimal does not have."""

BEGINS_TRACK = "(device_id IS DISTINCT FROM previous_id)"
"""SQL that holds of the first record of each track in what `places` selects."""


def places(records: str) -> str:
    """SQL that selects the records with a place, and of the one before each `previous_id` and `previous_us`."""
    before = "lag(device_id) OVER () AS previous_id, lag(epoch_us(timestamp)) OVER () AS previous_us"
    return f"SELECT *, {before} FROM (SELECT * FROM ({records}) WHERE {PLACED})"


def begins_segment(max_gap_s: float) -> str:
    """SQL that holds of the first record after each gap, and of the first of each track."""
    return f"({BEGINS_TRACK} OR epoch_us(timestamp) - previous_us > {round(max_gap_s * 1e6)})"


def xml_text(sql: str) -> str:
    """SQL of a text as XML has it; what XML can't say in any way is U+FFFD."""
    odd = "'[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x{fffe}\\x{ffff}]'"
    found = f"regexp_replace({sql}, {odd}, chr(65533), 'g')"
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        found = f"replace({found}, '{character}', '{name}')"
    return found


def xml_decimal(sql: str) -> str:
    """SQL of a number as XML's decimal: without an exponent, to 12 digits of fraction where it is near 0."""
    has_exponent = f"{sql} <> 0 AND abs({sql}) < {_SMALLEST_PLAIN}"
    return f"CASE WHEN {has_exponent} THEN format('{{:.12f}}', {sql}) ELSE CAST({sql} AS VARCHAR) END"
