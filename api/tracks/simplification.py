"""Line simplification on a sphere with the algorithm of Ramer (1972), Douglas and Peucker (1973).

Keeps the ends of a track. Between two kept points, keeps the point farthest from the line between them if its distance
is more than the tolerance, and repeats this for both parts. So each omitted point lies within the tolerance of the
simplified track.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from itertools import groupby

import pyarrow as pa

from api.geo.geo_sql import EARTH_RADIUS_KM
from telemetry.archive.schema import COLUMNS
from telemetry.model.record import NO_FIX
from telemetry.model.utc import DAY_US

Vector = tuple[float, float, float]
Place = tuple[float, float]


def points_to_keep(places: Sequence[Place], tolerance_m: float) -> list[bool]:
    """True for each point of a track to keep; places are latitude and longitude in degrees."""
    keep = [False] * len(places)
    if not places:
        return keep
    keep[0] = keep[-1] = True
    points = [_vector(*place) for place in places]
    segments = [(0, len(places) - 1)]
    while segments:
        first, last = segments.pop()
        far_m, farthest = _farthest(points, first, last)
        if far_m > tolerance_m:
            keep[farthest] = True
            segments += [(first, farthest), (farthest, last)]
    return keep


def _farthest(points: Sequence[Vector], first: int, last: int) -> tuple[float, int]:
    """The distance in metres and the index of the point farthest from the line between the first and last point."""
    a, b = points[first], points[last]
    normal = _cross(a, b)
    length = math.sqrt(_dot(normal, normal))
    max_chord, farthest = -1.0, first
    if length == 0:  # the same place, or opposite ones
        for index in range(first + 1, last):
            chord = _chord(a, points[index])
            if chord > max_chord:
                max_chord, farthest = chord, index
        return _metres(max_chord), farthest
    n = (normal[0] / length, normal[1] / length, normal[2] / length)
    begin, end = _cross(n, a), _cross(b, n)  # the nearest point lies on the line if p is on the inner side of both
    for index in range(first + 1, last):
        p = points[index]
        if _dot(p, begin) >= 0 and _dot(p, end) >= 0:
            chord = 2 * math.sin(math.asin(min(1.0, abs(_dot(p, n)))) / 2)
        else:
            chord = min(_chord(a, p), _chord(b, p))
        if chord > max_chord:
            max_chord, farthest = chord, index
    return _metres(max_chord), farthest


def _metres(chord: float) -> float:
    """The arc length on the earth for a chord of the unit sphere; 0 for a negative chord."""
    return 2_000 * EARTH_RADIUS_KM * math.asin(min(1.0, chord / 2)) if chord > 0 else 0.0


def _vector(latitude: float, longitude: float) -> Vector:
    up, along = math.radians(latitude), math.radians(longitude)
    return math.cos(up) * math.cos(along), math.cos(up) * math.sin(along), math.sin(up)


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _chord(a: Vector, b: Vector) -> float:
    return math.dist(a, b)


# Records ---------------------------------------------------------------------------------------------


def records_to_keep(keys: pa.Table, tolerance_m: float) -> pa.Array:
    """True for each record to keep if each device's day is simplified as one track.

    `keys` are records with a position, sorted by day, device, time and id: `device_id`, `us` (µs since epoch),
    `latitude` and `longitude`.
    """
    columns = (keys.column(name).to_pylist() for name in ("device_id", "us", "latitude", "longitude"))
    keep: list[bool] = []
    for _, track in groupby(zip(*columns, strict=True), key=lambda row: (row[1] // DAY_US, row[0])):
        keep += points_to_keep([(latitude, longitude) for _, _, latitude, longitude in track], tolerance_m)
    return pa.array(keep, pa.bool_())


def simplify(batches: Iterable[pa.RecordBatch], tolerance_m: float) -> Generator[pa.RecordBatch, None, None]:
    """The records to keep. `batches` are sorted by day, device, time and id; one device's day is in memory at a time.
    Records without a position are omitted."""
    pieces: list[pa.RecordBatch] = []
    track: tuple[int, str] | None = None
    for batch in batches:
        for next_track, piece in _pieces(batch):
            if next_track != track:
                yield from _simplify_track(pieces, tolerance_m)
                pieces, track = [], next_track
            pieces.append(piece)
    yield from _simplify_track(pieces, tolerance_m)


def _pieces(batch: pa.RecordBatch) -> list[tuple[tuple[int, str], pa.RecordBatch]]:
    """The batch divided into tracks; a track's key is its day and device."""
    us = batch.column("timestamp").cast(pa.int64()).to_pylist()
    tracks = [(at // DAY_US, device) for at, device in zip(us, batch.column("device_id").to_pylist(), strict=True)]
    pieces, start = [], 0
    for track, rows in groupby(tracks):
        count = sum(1 for _ in rows)
        pieces.append((track, batch.slice(start, count)))
        start += count
    return pieces


def _simplify_track(pieces: Sequence[pa.RecordBatch], tolerance_m: float) -> list[pa.RecordBatch]:
    if not pieces:
        return []
    track = pa.Table.from_batches(pieces, COLUMNS)
    names = ("latitude", "longitude", "attributes")
    rows = zip(*(track.column(name).to_pylist() for name in names), strict=True)
    has_position = [
        latitude is not None and longitude is not None and not (attributes or "").startswith(NO_FIX)
        for latitude, longitude, attributes in rows
    ]
    track = track.filter(pa.array(has_position, pa.bool_()))
    places = list(zip(*(track.column(name).to_pylist() for name in names[:2]), strict=True))
    batches: list[pa.RecordBatch] = track.filter(pa.array(points_to_keep(places, tolerance_m), pa.bool_())).to_batches()
    return batches
