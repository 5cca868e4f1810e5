"""KML 2.2 with Google's `gx:MultiTrack`: a placemark for each device, and a `gx:Track` with times for each segment.

The schema of `gx:Track` requires all times of a segment before its first position. So positions are buffered until the
segment ends: in memory, or in a temporary file if the segment is long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.formats.format import BATCH_ROWS, Format, Segments, Write
from api.formats.text_lines import iso, put, texts
from api.formats.tracks import BEGINS_TRACK, begins_segment, positions, xml_decimal, xml_text

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<kml xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2">\n'
    "<Document><name>Whimbrel</name>\n"
)
END_OF_TRACK, END_OF_FILE = "</gx:Track></gx:MultiTrack></Placemark>\n", "</Document></kml>\n"

MAX_BUFFER_BYTES = 2**22
"""Maximum bytes of a segment's positions in memory. A longer buffer goes to a temporary file."""

_SEGMENT = "'<gx:Track><altitudeMode>clampToGround</altitudeMode>' || chr(10)"
_TRACK = f"concat('<Placemark><name>', {xml_text('device_id')}, '</name><gx:MultiTrack>', chr(10), {_SEGMENT})"
_TIME = f"concat('<when>', {iso('timestamp')}, '</when>', chr(10))"
_POSITION = (
    f"concat('<gx:coord>', {xml_decimal('longitude')}, ' ', {xml_decimal('latitude')}, ' ', "
    f"{xml_decimal('coalesce(altitude_m, 0)')}, '</gx:coord>', chr(10))"
)


def _write(segments: Segments) -> Write:
    is_first = begins_segment(segments)
    begin = (
        f"CASE WHEN previous_id IS NULL THEN {_TRACK} WHEN {BEGINS_TRACK} THEN '{END_OF_TRACK}' || {_TRACK} "
        f"WHEN {is_first} THEN '</gx:Track>' || chr(10) || {_SEGMENT} ELSE '' END"
    )
    columns = f"{is_first} AS is_first, concat({begin}, {_TIME}) AS times, {_POSITION} AS positions"

    def write(connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS) -> int:
        rows = 0
        put(file, HEAD.encode())
        with (
            SpooledTemporaryFile(MAX_BUFFER_BYTES, dir=_temporary_folder(connection)) as buffer,
            connection.sql(f"SELECT {columns} FROM ({positions(records)})").to_arrow_reader(batch_rows) as batches,
        ):
            for batch in batches:
                for first, end in _segments(batch):
                    if batch.column("is_first")[first].as_py():
                        _flush(buffer, file)
                    put(file, texts(batch.column("times"), first, end))
                    buffer.write(texts(batch.column("positions"), first, end))
                rows += batch.num_rows
            _flush(buffer, file)
        put(file, ((END_OF_TRACK if rows else "") + END_OF_FILE).encode())
        return rows

    return write


def _segments(batch: pa.RecordBatch) -> Iterator[tuple[int, int]]:
    """First row (inclusive) and last row (exclusive) of each segment in a batch."""
    firsts = [row for row in pc.indices_nonzero(batch.column("is_first")).to_pylist() if row]
    return zip([0, *firsts], [*firsts, batch.num_rows], strict=True) if batch.num_rows else iter(())


def _flush(buffer: SpooledTemporaryFile[bytes], file: int) -> None:
    """Write the buffered positions to a file descriptor, and empty the buffer."""
    buffer.seek(0)
    while data := buffer.read(2**16):
        put(file, data)
    buffer.seek(0)
    buffer.truncate()


def _temporary_folder(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The folder of DuckDB's temporary files. None if it does not exist."""
    [(folder,)] = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    return folder if os.path.isdir(folder) else None


FORMAT = Format(("application/vnd.google-earth.kml+xml",), "kml", _write(Segments()), write_tracks=_write, is_map=True)
