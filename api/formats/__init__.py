"""Output formats of records, a file for each.

To add a format, add a file here and a line in `FORMATS`. Imported by `responses/`, `records/`, `latest/` and `cli/`.
"""

from __future__ import annotations

from api.formats import arrow, csv, geojson, gpx, json, kml, ndjson, parquet
from api.formats.format import Format

FORMATS: dict[str, Format] = {
    "json": json.FORMAT,
    "ndjson": ndjson.FORMAT,
    "csv": csv.FORMAT,
    "geojson": geojson.FORMAT,
    "arrow": arrow.FORMAT,
    "parquet": parquet.FORMAT,
    "gpx": gpx.FORMAT,
    "kml": kml.FORMAT,
}
"""Format by name. The first is the default, for clients without a preference."""
