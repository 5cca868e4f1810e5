"""Filter by area: a bounding box (`bbox=`) or a circle (`near=`).

Matches only records with both coordinates and a fix.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from starlette.requests import Request

from api.geo.geo_sql import EARTH_RADIUS_KM, PLACED, distance_km, haversine_km
from telemetry.http.operations import InvalidValue, Parameter, Schema
from telemetry.http.problem_responses import invalid_parameter

MAX_RADIUS_M = 20_100_000.0
"""Maximum radius, more than the distance between any two places on the earth."""

_NUMBER = re.compile(r"[+-]?\d{1,12}(\.\d{0,15})?", re.ASCII)


class Circle(NamedTuple):
    """A centre and a radius in metres."""

    latitude: float
    longitude: float
    radius_m: float


class Area(NamedTuple):
    """A box in degrees, edges included. If `west` is greater than `east`, it crosses the 180th meridian. With a
    `circle`, the box is its bounding box, and a position must lie in the circle."""

    west: float
    south: float
    east: float
    north: float
    circle: Circle | None = None

    @property
    def sql(self) -> str:
        """The SQL condition that a record lies in the area."""
        conditions = [PLACED, f"latitude BETWEEN {self.south!r} AND {self.north!r}"]
        if self.west <= self.east:
            conditions.append(f"longitude BETWEEN {self.west!r} AND {self.east!r}")
        else:
            conditions.append(f"(longitude >= {self.west!r} OR longitude <= {self.east!r})")
        if self.circle is not None:
            far_km = haversine_km(repr(self.circle.latitude), repr(self.circle.longitude))
            conditions.append(f"1000 * {far_km} <= {self.circle.radius_m!r}")
        return " AND ".join(conditions)

    def holds(self, latitude: float, longitude: float) -> bool:
        """True if a position lies in the area."""
        if not self.south <= latitude <= self.north:
            return False
        is_east, is_west = self.west <= longitude, longitude <= self.east
        if not (is_east and is_west if self.west <= self.east else is_east or is_west):
            return False
        return self.circle is None or distance_m(self.circle, latitude, longitude) <= self.circle.radius_m


def area(request: Request) -> Area | None:
    """The area in a request's parameters; None if there is none. Raises `ProblemError`."""
    if all(parameter.name in request.query_params for parameter in PARAMETERS):
        raise invalid_parameter("near", "cannot be combined with bbox")
    box, circle = BBOX.of(request), NEAR.of(request)
    return box if circle is None else around(circle)


def _box(text: str) -> Area:
    west, south, east, north = _numbers(text, "west,south,east,north in degrees, like 28.5,40.8,29.4,41.2", 4)
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise InvalidValue("must have -90 <= south <= north <= 90, and west and east within -180 and 180")
    return Area(west, south, east, north)


def _circle(text: str) -> Circle:
    form = "latitude,longitude in degrees and a radius in metres, like 41.0082,28.9784,500"
    latitude, longitude, radius_m = _numbers(text, form, 3)
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise InvalidValue("must have a latitude within -90 and 90, and a longitude within -180 and 180")
    if not 0 <= radius_m <= MAX_RADIUS_M:
        raise InvalidValue(f"must have a radius from 0 to {MAX_RADIUS_M:.0f} m")
    return Circle(latitude, longitude, radius_m)


def _numbers(text: str, form: str, count: int) -> list[float]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count or not all(map(_NUMBER.fullmatch, parts)):
        raise InvalidValue(f"must be {form}")
    return [float(part) for part in parts]


_LATITUDE: Schema = {"type": "number", "minimum": -90, "maximum": 90}
_LONGITUDE: Schema = {"type": "number", "minimum": -180, "maximum": 180}
_RADIUS_M: Schema = {"type": "number", "minimum": 0, "maximum": MAX_RADIUS_M}


def _array(*parts: Schema) -> Schema:
    """The schema of numbers separated by commas. `items` is not `false`: client generators do not support it."""
    count = len(parts)
    return {"type": "array", "prefixItems": [*parts], "items": {"type": "number"}, "minItems": count, "maxItems": count}


BBOX = Parameter[Area | None](
    "bbox",
    "Only positions in this box: west,south,east,north in degrees. If west is greater than east, the box crosses the "
    "180th meridian.",
    _array(_LONGITUDE, _LATITUDE, _LONGITUDE, _LATITUDE),
    _box,
    default=None,
)
NEAR = Parameter[Circle | None](
    "near",
    "Only positions in this circle: latitude,longitude in degrees and a radius in metres. Not together with bbox.",
    _array(_LATITUDE, _LONGITUDE, _RADIUS_M),
    _circle,
    default=None,
)
PARAMETERS = (BBOX, NEAR)


def around(circle: Circle) -> Area:
    """A circle as an area with a slightly enlarged bounding box."""
    angle = circle.radius_m / (EARTH_RADIUS_KM * 1_000) * 1.000_001 + 1e-9
    south, north = (circle.latitude + sign * math.degrees(angle) for sign in (-1, 1))
    if south <= -90 or north >= 90:  # the circle contains a pole, and so all longitudes
        return Area(-180.0, max(south, -90.0), 180.0, min(north, 90.0), circle)
    width = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(circle.latitude))))) + 1e-9
    if width >= 180:
        return Area(-180.0, south, 180.0, north, circle)
    return Area(_wrapped(circle.longitude - width), south, _wrapped(circle.longitude + width), north, circle)


def _wrapped(longitude: float) -> float:
    """A longitude normalized to -180 to 180."""
    return longitude - 360 if longitude > 180 else longitude + 360 if longitude < -180 else longitude


def distance_m(circle: Circle, latitude: float, longitude: float) -> float:
    """Distance of a position from the centre of a circle."""
    return 1_000 * distance_km(circle.latitude, circle.longitude, latitude, longitude)
