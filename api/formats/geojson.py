"""GeoJSON FeatureCollection (RFC 7946): a point for each record, with all its fields as properties."""

from __future__ import annotations

from api.formats.format import Format
from api.formats.ndjson import MEMBERS
from api.formats.text_lines import lines

_POINT = (
    'coalesce(\'{"type":"Point","coordinates":[\' || CAST(longitude AS VARCHAR) || \',\' '
    "|| CAST(latitude AS VARCHAR) || ']}', 'null')"
)
_FEATURE = (
    'concat(\',\', chr(10), \'{"type":"Feature","id":\', CAST(id AS VARCHAR), \',"geometry":\', '
    f"{_POINT}, ',\"properties\":{{', {MEMBERS}, '}}}}')"
)

FORMAT = Format(
    ("application/geo+json", "application/vnd.geo+json"),
    "geojson",
    lines(_FEATURE, head='{"type":"FeatureCollection","features":[', separator=",", tail="\n]}\n"),
    is_map=True,
)
