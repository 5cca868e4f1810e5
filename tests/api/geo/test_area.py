"""Boxes and circles contain the same positions in SQL and in Python, also at poles and the 180th meridian."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from api.geo.area import Area, Circle, area, around, distance_m
from telemetry.archive.schema import open_duckdb
from telemetry.http.problem_responses import ProblemError


def asked(**query: str) -> Request:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    return Request({"type": "http", "query_string": text.encode(), "headers": []})


def in_sql(connection: duckdb.DuckDBPyConnection, where: Area, latitude: float, longitude: float) -> bool:
    place = "SELECT CAST($1 AS DOUBLE) AS latitude, CAST($2 AS DOUBLE) AS longitude, NULL AS attributes"
    [(found,)] = connection.execute(f"SELECT {where.sql} FROM ({place})", [latitude, longitude]).fetchall()
    return bool(found)


LATITUDES = st.floats(-90, 90) | st.sampled_from([-90.0, 0.0, 90.0])
LONGITUDES = st.floats(-180, 180) | st.sampled_from([-180.0, 0.0, 180.0])
CONNECTION = open_duckdb()


@settings(deadline=None)
@given(LATITUDES, LONGITUDES, st.floats(0, 20_100_000), LATITUDES, LONGITUDES)
def test_the_bounding_box_contains_the_circle(
    latitude: float, longitude: float, radius_m: float, at: float, along: float
) -> None:
    circle = Circle(latitude, longitude, radius_m)
    where = around(circle)
    far_m = distance_m(circle, at, along)
    if math.isclose(far_m, radius_m, rel_tol=1e-9, abs_tol=1e-6):
        return  # rounding decides on the edge
    assert where.holds(at, along) == (far_m <= radius_m)
    assert in_sql(CONNECTION, where, at, along) == (far_m <= radius_m)


@settings(deadline=None)
@given(LONGITUDES, LONGITUDES, st.tuples(LATITUDES, LATITUDES).map(sorted), LATITUDES, LONGITUDES)
def test_a_box_is_equal_in_sql_and_python(west: float, east: float, ends: list[float], at: float, along: float) -> None:
    where = Area(west, ends[0], east, ends[1])
    assert in_sql(CONNECTION, where, at, along) == where.holds(at, along)


def test_a_box_over_the_180th_meridian() -> None:
    where = Area(170, -10, -170, 10)
    assert where.holds(0, 175)
    assert where.holds(0, -175)
    assert not where.holds(0, 0)


def test_known_distances() -> None:
    istanbul = Circle(41.0082, 28.9784, 0)
    assert distance_m(istanbul, 41.0082, 28.9784) == 0
    assert distance_m(istanbul, 39.9334, 32.8597) == pytest.approx(350_000, rel=0.01)  # Ankara
    assert distance_m(Circle(0, 0, 0), 0, 180) == pytest.approx(math.pi * 6_371_008.8)


@pytest.mark.parametrize("text", ["28.5,40.8,29.4,41.2", " 28.5, 40.8 ,29.4,41.2"])
def test_a_box_is_parsed(text: str) -> None:
    assert area(asked(bbox=text)) == Area(28.5, 40.8, 29.4, 41.2)


def test_without_parameters_there_is_no_area() -> None:
    assert area(asked()) is None


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"bbox": ""}, "west,south,east,north"),
        ({"bbox": "1,2,3"}, "west,south,east,north"),
        ({"bbox": "1,2,3,nan"}, "west,south,east,north"),
        ({"bbox": "1,2,3,1e3"}, "west,south,east,north"),
        ({"bbox": "0,10,0,-10"}, "south <= north"),
        ({"bbox": "0,0,181,1"}, "within -180 and 180"),
        ({"near": "1,2"}, "a radius in metres"),
        ({"near": "91,0,5"}, "a latitude within"),
        ({"near": "0,0,-5"}, "a radius from 0"),
        ({"near": "0,0,99999999"}, "a radius from 0"),
        ({"near": "0,0,5", "bbox": "0,0,1,1"}, "cannot be combined with bbox"),
    ],
)
def test_invalid_areas_are_rejected(query: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProblemError, match=reason):
        area(asked(**query))
