"""KML 2.2 with Google's `gx:Track`: a placemark a device, whose places have their times."""

from __future__ import annotations

from api.formats.contract import Format
from api.formats.lines import iso
from api.formats.tracks import tracks, xml_text

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<kml xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2">\n'
    "<Document><name>Whimbrel</name>\n"
)
END = "</gx:Track></Placemark>\n"

_BEGIN = (
    f"concat('<Placemark><name>', {xml_text('device_id')}, '</name><gx:Track>"
    "<altitudeMode>clampToGround</altitudeMode>', chr(10))"
)
_POINT = (
    f"concat('<when>', {iso('timestamp')}, '</when><gx:coord>', CAST(longitude AS VARCHAR), ' ', "
    "CAST(latitude AS VARCHAR), ' ', CAST(coalesce(altitude_m, 0) AS VARCHAR), '</gx:coord>', chr(10))"
)

FORMAT = Format(
    ("application/vnd.google-earth.kml+xml",),
    "kml",
    tracks(HEAD, _BEGIN, _POINT, END, "</Document></kml>\n"),
    has_tracks=True,
)
