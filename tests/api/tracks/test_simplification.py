"""Simplified tracks: omitted points lie near the simplified track."""

from __future__ import annotations

import math
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.geo.area import Circle, distance_m
from api.tracks.simplification import points_to_keep, records_to_keep, simplify
from telemetry.archive.schema import COLUMNS
from telemetry.model.utc import DAY_US
from tests.api.tracks.test_trip_detection import M

Place = tuple[float, float]
NEAR = st.lists(st.tuples(st.floats(40.0, 40.02), st.floats(29.0, 29.02)), max_size=40)


def way_m(place: Place, first: Place, last: Place) -> float:
    """Distance of a place from the line between two near places on a plane; the error is a thousandth at most."""
    scale = math.cos(math.radians(first[0]))
    (x, y), (ax, ay), (bx, by) = ((one[1] * scale / M, one[0] / M) for one in (place, first, last))
    length = (bx - ax) ** 2 + (by - ay) ** 2
    along = 0.0 if length == 0 else min(1.0, max(0.0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length))
    return math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))


@settings(deadline=None)
@given(NEAR, st.sampled_from([1.0, 10.0, 300.0]))
def test_omitted_points_lie_within_the_tolerance(places: list[Place], tolerance_m: float) -> None:
    stays = points_to_keep(places, tolerance_m)
    left = [place for place, is_kept in enumerate(stays) if is_kept]
    assert len(stays) == len(places)
    assert not places or (left[0], left[-1]) == (0, len(places) - 1)
    for first, last in pairwise(left):
        for place in range(first + 1, last):
            assert way_m(places[place], places[first], places[last]) <= tolerance_m * 1.01 + 0.01


def test_a_straight_line_keeps_only_its_ends() -> None:
    assert points_to_keep([(40 + n * M, 29.0) for n in range(100)], 0.1) == [True, *[False] * 98, True]


def test_a_corner_is_kept() -> None:
    assert points_to_keep([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)], 5) == [True, False, True, False, True]


def test_the_turning_point_of_a_return_trip_is_kept() -> None:
    assert points_to_keep([(0, 0), (0, 0.5), (0, 1), (0, 0.5), (0, 0)], 5) == [True, False, True, False, True]


def test_over_the_180th_meridian_and_a_pole() -> None:
    assert points_to_keep([(0, 179.5), (0, -179.9), (0, -179.5)], 5) == [True, False, True]
    assert points_to_keep([(89, 0), (90, 0), (89, 180)], 5) == [True, False, True]


def test_long_lines_are_great_circles() -> None:
    """The shortest line from Istanbul to New York is far north of the straight line on a map."""
    first, last, on_the_map = (41.0, 29.0), (40.7, -74.0), (40.85, -22.5)
    half_m = distance_m(Circle(*first, 0), *last) / 2
    middle = (54.249, -22.663)
    assert distance_m(Circle(*first, 0), *middle) == pytest.approx(half_m, rel=0.01)
    assert distance_m(Circle(*last, 0), *middle) == pytest.approx(half_m, rel=0.01)
    assert points_to_keep([first, middle, last], 50_000) == [True, False, True]
    assert points_to_keep([first, on_the_map, last], 1_000_000) == [True, True, True]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_points_are_all_kept(count: int) -> None:
    assert points_to_keep([(1.0, 2.0)] * count, 5) == [True] * count


def records(rows: list[tuple[str, int, float | None, str | None]]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "device_id": device,
                "timestamp": us,
                "received_at": 0,
                "id": number,
                "latitude": north,
                "longitude": 0.0 if north is not None else None,
                "attributes": attributes,
            }
            for number, (device, us, north, attributes) in enumerate(rows)
        ],
        COLUMNS,
    )


ROWS: list[tuple[str, int, float | None, str | None]] = [
    *(("a", n, n * M, None) for n in range(5)),
    ("a", 6, None, None),
    ("a", 7, 9.0, '{"fix":false}'),
    *(("b", n, n * M, None) for n in range(3)),
    *(("a", DAY_US + n, n * M, None) for n in range(4)),
]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_device_s_day_is_a_track(size: int) -> None:
    found = [number for batch in simplify(records(ROWS).to_batches(size), 1.0) for number in batch["id"].to_pylist()]
    assert found == [0, 4, 7, 9, 10, 13]


def test_keys_give_the_same_records() -> None:
    placed = [row for row in ROWS if row[2] is not None and row[3] is None]
    keys = pa.table(
        {
            "device_id": [row[0] for row in placed],
            "us": [row[1] for row in placed],
            "latitude": [row[2] for row in placed],
            "longitude": [0.0] * len(placed),
        }
    )
    assert [place for place, stays in enumerate(records_to_keep(keys, 1.0).to_pylist()) if stays] == [0, 4, 5, 7, 8, 11]
