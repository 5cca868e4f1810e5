"""Tracks with fewer points that look the same: the rule of Ramer (1972), Douglas and Peucker (1973), on a sphere.

Of a track its ends stay, and of a stretch between two points that stay the one farthest from the way between them, if
that is more than the tolerance. So whatever is left out lies within the tolerance of the track that is left.
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


def kept(places: Sequence[Place], tolerance_m: float) -> list[bool]:
    """Which points of a track stay; places are latitude and longitude in degrees."""
    stays = [False] * len(places)
    if not places:
        return stays
    stays[0] = stays[-1] = True
    points = [_vector(*place) for place in places]
    stretches = [(0, len(places) - 1)]
    while stretches:
        first, last = stretches.pop()
        far_m, farthest = _farthest(points, first, last)
        if far_m > tolerance_m:
            stays[farthest] = True
            stretches += [(first, farthest), (farthest, last)]
    return stays


def _farthest(points: Sequence[Vector], first: int, last: int) -> tuple[float, int]:
    """How far the farthest point between two is from the way between these, in metres, and which it is."""
    a, b = points[first], points[last]
    normal = _cross(a, b)
    length = math.sqrt(_dot(normal, normal))
    most, found = -1.0, first
    if length == 0:  # the same place, or opposite ones
        for place in range(first + 1, last):
            far = _chord(a, points[place])
            if far > most:
                most, found = far, place
        return _metres(most), found
    n = (normal[0] / length, normal[1] / length, normal[2] / length)
    begin, end = _cross(n, a), _cross(b, n)  # a point is beside the way if it lies on the inner side of both
    for place in range(first + 1, last):
        p = points[place]
        if _dot(p, begin) >= 0 and _dot(p, end) >= 0:
            far = 2 * math.sin(math.asin(min(1.0, abs(_dot(p, n)))) / 2)
        else:
            far = min(_chord(a, p), _chord(b, p))
        if far > most:
            most, found = far, place
    return _metres(most), found


def _metres(chord: float) -> float:
    """The way on the sphere that a chord of the unit sphere spans; nothing for none."""
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


def kept_of_days(keys: pa.Table, tolerance_m: float) -> pa.Array:
    """Of records that have a place, by day, device, time and id, those that stay; a device's day is a track.

    `keys` has `device_id`, `us` (µs since epoch), `latitude` and `longitude`.
    """
    columns = (keys.column(name).to_pylist() for name in ("device_id", "us", "latitude", "longitude"))
    stays: list[bool] = []
    for _, track in groupby(zip(*columns, strict=True), key=lambda row: (row[1] // DAY_US, row[0])):
        stays += kept([(latitude, longitude) for _, _, latitude, longitude in track], tolerance_m)
    return pa.array(stays, pa.bool_())


def simplified(batches: Iterable[pa.RecordBatch], tolerance_m: float) -> Generator[pa.RecordBatch, None, None]:
    """What stays of records that come by day, device, time and id. In memory is one device's day; records that have no
    place are left out."""
    waiting: list[pa.RecordBatch] = []
    track: tuple[int, str] | None = None
    for batch in batches:
        for begun, piece in _pieces(batch):
            if begun != track:
                yield from _simplified(waiting, tolerance_m)
                waiting, track = [], begun
            waiting.append(piece)
    yield from _simplified(waiting, tolerance_m)


def _pieces(batch: pa.RecordBatch) -> list[tuple[tuple[int, str], pa.RecordBatch]]:
    """The stretches of a batch that are of one device and day."""
    us = batch.column("timestamp").cast(pa.int64()).to_pylist()
    tracks = [(at // DAY_US, device) for at, device in zip(us, batch.column("device_id").to_pylist(), strict=True)]
    found, start = [], 0
    for track, rows in groupby(tracks):
        count = sum(1 for _ in rows)
        found.append((track, batch.slice(start, count)))
        start += count
    return found


def _simplified(pieces: Sequence[pa.RecordBatch], tolerance_m: float) -> list[pa.RecordBatch]:
    if not pieces:
        return []
    track = pa.Table.from_batches(pieces, COLUMNS)
    names = ("latitude", "longitude", "attributes")
    rows = zip(*(track.column(name).to_pylist() for name in names), strict=True)
    placed = [
        latitude is not None and longitude is not None and not (attributes or "").startswith(NO_FIX)
        for latitude, longitude, attributes in rows
    ]
    track = track.filter(pa.array(placed, pa.bool_()))
    places = list(zip(*(track.column(name).to_pylist() for name in names[:2]), strict=True))
    found: list[pa.RecordBatch] = track.filter(pa.array(kept(places, tolerance_m), pa.bool_())).to_batches()
    return found
