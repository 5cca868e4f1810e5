"""Positions on the earth in SQL and Python: records with a position, and distances. Imports little."""

from __future__ import annotations

import math

from telemetry.model.record import NO_FIX

EARTH_RADIUS_KM = 6371.0088
"""The mean radius of WGS 84."""

PLACED = f"latitude IS NOT NULL AND longitude IS NOT NULL AND NOT coalesce(starts_with(attributes, '{NO_FIX}'), false)"
"""SQL condition: the record has both coordinates and a fix."""


def haversine_km(latitude: str, longitude: str) -> str:
    """SQL of the distance between a record and a position, whose degrees are SQL, on a sphere (haversine formula). If a
    coordinate is null, the result is half the earth's circumference, because `least` ignores nulls."""
    return (
        f"{2 * EARTH_RADIUS_KM!r} * asin(least(1, sqrt(pow(sin(radians(latitude - {latitude}) / 2), 2) "
        f"+ cos(radians({latitude})) * cos(radians(latitude)) "
        f"* pow(sin(radians(longitude - {longitude}) / 2), 2))))"
    )


def distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Distance between two positions on a sphere (haversine formula)."""
    first, second = math.radians(latitude), math.radians(other_latitude)
    half = math.sin((second - first) / 2) ** 2
    half += math.cos(first) * math.cos(second) * math.sin(math.radians(other_longitude - longitude) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half)))
