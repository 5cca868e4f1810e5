"""GPX 1.1: a track for each device, points with times, and speed and course in Garmin's TrackPointExtension."""

from __future__ import annotations

import duckdb

from api.formats.format import BATCH_ROWS, Format, Segments, Write
from api.formats.text_lines import iso, lines
from api.formats.tracks import BEGINS_TRACK, begins_segment, positions, xml_decimal, xml_text

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<gpx version="1.1" creator="Whimbrel" xmlns="http://www.topografix.com/GPX/1/1" '
    'xmlns:gpxtpx="http://www.garmin.com/xmlschemas/TrackPointExtension/v2">\n'
)
END_OF_TRACK, END_OF_FILE = "</trkseg></trk>\n", "</gpx>\n"

_BEGIN = f"concat('{END_OF_TRACK}<trk><name>', {xml_text('device_id')}, '</name><trkseg>', chr(10))"
_NEW_SEGMENT = "'</trkseg><trkseg>' || chr(10)"
_LONGITUDE = f"CASE WHEN longitude = 180 THEN '-180.0' ELSE {xml_decimal('longitude')} END"
"""GPX allows only -180 for the 180th meridian."""

_SPEED = "coalesce('<gpxtpx:speed>' || CAST(speed_kmh / 3.6 AS VARCHAR) || '</gpxtpx:speed>', '')"
_COURSE = f"coalesce('<gpxtpx:course>' || ({xml_decimal('heading_deg')}) || '</gpxtpx:course>', '')"
_POINT = (
    f"concat('<trkpt lat=\"', {xml_decimal('latitude')}, '\" lon=\"', {_LONGITUDE}, '\">', "
    f"coalesce('<ele>' || ({xml_decimal('altitude_m')}) || '</ele>', ''), "
    f"'<time>', {iso('timestamp')}, '</time>', "
    "CASE WHEN speed_kmh IS NULL AND heading_deg IS NULL THEN '' ELSE "
    f"concat('<extensions><gpxtpx:TrackPointExtension>', {_SPEED}, {_COURSE}, "
    "'</gpxtpx:TrackPointExtension></extensions>') END, '</trkpt>', chr(10))"
)


def _write(segments: Segments) -> Write:
    new_segment = f"WHEN {begins_segment(segments)} THEN {_NEW_SEGMENT}"
    line = f"concat(CASE WHEN {BEGINS_TRACK} THEN {_BEGIN} {new_segment} ELSE '' END, {_POINT})"
    write_lines = lines(line, HEAD, END_OF_TRACK, END_OF_TRACK + END_OF_FILE, if_empty=HEAD + END_OF_FILE)

    def write(connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS) -> int:
        return write_lines(connection, positions(records), file, batch_rows)

    return write


FORMAT = Format(("application/gpx+xml",), "gpx", _write(Segments()), write_tracks=_write, is_map=True)
