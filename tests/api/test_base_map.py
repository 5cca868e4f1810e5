"""The data of the base map's rivers and lakes: as small as a page may load, and where those of the world are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import accumulate
from math import cos, hypot, radians
from typing import Any

import pytest

from tests.box import PROJECT

FILE = PROJECT / "api" / "static" / "world" / "waters.json"
MOST_BYTES = 250_000
SAME_DEGREES = 0.05

Place = tuple[float, float]


@pytest.fixture(scope="module")
def waters() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_bytes())
    return found


def lines(waters: dict[str, Any], kind: str) -> Iterator[list[Place]]:
    """Lines of rivers or rings of lakes: places in degrees east and north."""
    step = waters["transform"]["scale"][0]
    for geometry in waters["objects"][kind]["geometries"]:
        for (index,) in geometry["arcs"]:
            points = accumulate(waters["arcs"][index], lambda one, more: [one[0] + more[0], one[1] + more[1]])
            yield [(x * step, y * step) for x, y in points]


def test_it_is_small() -> None:
    assert FILE.stat().st_size < MOST_BYTES


@pytest.mark.parametrize(("kind", "size"), [("rivers", "length_km"), ("lakes", "size_km2")])
def test_large_ones_come_first_and_none_is_nothing(waters: dict[str, Any], kind: str, size: str) -> None:
    found = waters["objects"][kind]["geometries"]
    sizes = [one["properties"][size] for one in found]
    assert len(found) > 250
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= 100
    assert all(one["arcs"] for one in found)


def test_all_of_it_is_in_the_world_and_rings_are_closed(waters: dict[str, Any]) -> None:
    for kind in ("rivers", "lakes"):
        for line in lines(waters, kind):
            assert len(line) >= 2
            assert all(abs(east) <= 180 and abs(north) <= 85 for east, north in line)
    assert all(ring[0] == pytest.approx(ring[-1]) and len(ring) >= 4 for ring in lines(waters, "lakes"))


@pytest.mark.parametrize(
    "town",
    [
        pytest.param((31.23, 30.04), id="Cairo on the Nile"),
        pytest.param((6.97, 50.94), id="Cologne on the Rhine"),
        pytest.param((-60.0, -3.2), id="Manaus on the Amazon"),
        pytest.param((114.3, 30.6), id="Wuhan on the Yangtze"),
        pytest.param((-90.07, 29.95), id="New Orleans on the Mississippi"),
        pytest.param((139.28, -35.12), id="Murray Bridge on the Murray"),
    ],
)
def test_rivers_run_by_their_towns(waters: dict[str, Any], town: Place) -> None:
    assert min(away_km(town, place) for line in lines(waters, "rivers") for place in line) < 30


def away_km(one: Place, other: Place) -> float:
    """About how far two places are apart."""
    return hypot((other[0] - one[0]) * cos(radians(one[1])), other[1] - one[1]) * 111.2


def test_the_largest_lake_is_as_large_as_superior(waters: dict[str, Any]) -> None:
    largest = waters["objects"]["lakes"]["geometries"][0]["properties"]["size_km2"]
    assert largest == pytest.approx(82_100, rel=0.05)


@pytest.mark.parametrize("kind", ["rivers", "lakes"])
def test_none_is_drawn_twice(waters: dict[str, Any], kind: str) -> None:
    """Parts of the package overlap, each with a grid of its own."""
    boxes = sorted(edges(line) for line in lines(waters, kind) if len(line) > 10)
    near = [
        (one, other)
        for index, one in enumerate(boxes)
        for other in boxes[index + 1 : index + 20]
        if max(abs(a - b) for a, b in zip(one, other, strict=True)) < SAME_DEGREES
    ]
    assert near == []


def edges(line: list[Place]) -> tuple[float, ...]:
    """West, south, east and north edge of a line, degrees."""
    return (*map(min, zip(*line, strict=True)), *map(max, zip(*line, strict=True)))
