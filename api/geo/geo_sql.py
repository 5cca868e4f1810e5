"""Positions on the earth: which records have one, and how far apart two are, in SQL and in Python. Light to load."""

from __future__ import annotations

import math

from telemetry.model.record import NO_FIX

EARTH_RADIUS_KM = 6371.0088
"""The mean radius of WGS 84."""

PLACED = f"latitude IS NOT NULL AND longitude IS NOT NULL AND NOT coalesce(starts_with(attributes, '{NO_FIX}'), false)"
"""SQL that holds of records that say where a device was."""


def haversine_km(latitude: str, longitude: str) -> str:
    """SQL of how far a record is from a place, whose degrees are SQL, along the surface of a sphere. Where one of them
    is null it says half the earth around, for `least` passes over nulls."""
    return (
        f"{2 * EARTH_RADIUS_KM!r} * asin(least(1, sqrt(pow(sin(radians(latitude - {latitude}) / 2), 2) "
        f"+ cos(radians({latitude})) * cos(radians(latitude)) "
        f"* pow(sin(radians(longitude - {longitude}) / 2), 2))))"
    )


def distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Distance of two positions along the surface of a sphere (haversine formula)."""
    first, second = math.radians(latitude), math.radians(other_latitude)
    half = math.sin((second - first) / 2) ** 2
    half += math.cos(first) * math.cos(second) * math.sin(math.radians(other_longitude - longitude) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half)))
