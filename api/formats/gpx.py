"""GPX 1.1: a track a device, each point with its time; speed and course as Garmin's TrackPointExtension has them."""

from __future__ import annotations

from api.formats.contract import Format
from api.formats.lines import iso
from api.formats.tracks import tracks, xml_text

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<gpx version="1.1" creator="Whimbrel" xmlns="http://www.topografix.com/GPX/1/1" '
    'xmlns:gpxtpx="http://www.garmin.com/xmlschemas/TrackPointExtension/v2">\n'
)
END = "</trkseg></trk>\n"

_BEGIN = f"concat('<trk><name>', {xml_text('device_id')}, '</name><trkseg>', chr(10))"
_SPEED = "coalesce('<gpxtpx:speed>' || CAST(speed_kmh / 3.6 AS VARCHAR) || '</gpxtpx:speed>', '')"
_COURSE = "coalesce('<gpxtpx:course>' || CAST(heading_deg AS VARCHAR) || '</gpxtpx:course>', '')"
_POINT = (
    "concat('<trkpt lat=\"', CAST(latitude AS VARCHAR), '\" lon=\"', CAST(longitude AS VARCHAR), '\">', "
    "coalesce('<ele>' || CAST(altitude_m AS VARCHAR) || '</ele>', ''), "
    f"'<time>', {iso('timestamp')}, '</time>', "
    "CASE WHEN speed_kmh IS NULL AND heading_deg IS NULL THEN '' ELSE "
    f"concat('<extensions><gpxtpx:TrackPointExtension>', {_SPEED}, {_COURSE}, "
    "'</gpxtpx:TrackPointExtension></extensions>') END, '</trkpt>', chr(10))"
)

FORMAT = Format(("application/gpx+xml",), "gpx", tracks(HEAD, _BEGIN, _POINT, END, "</gpx>\n"), has_tracks=True)
