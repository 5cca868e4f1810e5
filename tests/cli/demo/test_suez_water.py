"""The ships at Suez sail on water: on the page's map, as its files draw land, canals and lakes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import cos, hypot, radians
from typing import Any

import numpy as np
import numpy.typing as npt

from cli.demo.suez import reports
from tests.box import PROJECT

Places = npt.NDArray[np.float64]
"""Places, or corners of a ring or line: a row each of degrees east and north."""

STATIC = PROJECT / "api" / "static"
WEST, SOUTH, EAST, NORTH = 31.9, 29.6, 33.0, 31.9
"""The part of the world that the ships do not leave, degrees."""

GAP_S = 600.0
"""The page draws a track dashed between positions that are farther apart."""

SHORE_KM = 0.35
"""A place so near to water is on it: half of what the canal is wide on the map at zoom 8."""

STEP_KM = 0.5
DEGREE_KM = np.array([111.2 * cos(radians(30.5)), 111.2])
LAKES = ("TIMSAH", "GREAT_BITTER", "LITTLE_BITTER")


def land() -> list[Places]:
    """Rings of the fine coast, those that are near the ships."""
    topology = json.loads((STATIC / "world" / "countries-10m.json").read_bytes())
    scale, origin = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = [np.cumsum(np.array(arc), axis=0) * scale + origin for arc in topology["arcs"]]
    return [ring for ring in _rings(topology["objects"]["land"], arcs) if _is_near(ring)]


def _rings(layer: dict[str, Any], arcs: list[Places]) -> Iterator[Places]:
    for geometry in layer["geometries"]:
        polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
        for ring in (ring for polygon in polygons for ring in polygon):
            yield np.concatenate([arcs[index] if index >= 0 else arcs[~index][::-1] for index in ring])


def _is_near(ring: Places) -> bool:
    (west, south), (east, north) = ring.min(axis=0), ring.max(axis=0)
    return bool(west < EAST and east > WEST and south < NORTH and north > SOUTH)


def canals() -> dict[str, Places]:
    """The lines and rings of canals.js by their names."""
    script = (STATIC / "page" / "canals.js").read_text(encoding="utf-8")
    declared = re.findall(r"const ([A-Z_]+) = (\[.*?\]);", script, re.DOTALL)
    return {name: np.array(json.loads(re.sub(r",\s*\]$", "]", places))) for name, places in declared}


def is_in(places: Places, rings: list[Places]) -> npt.NDArray[np.bool_]:
    """Which places are inside of an odd number of rings."""
    crossed = np.zeros(len(places), dtype=int)
    east, north = places[:, :1], places[:, 1:]
    for ring in rings:
        start, end = _edges(ring)
        passes = (start[:, 1] > north) != (end[:, 1] > north)
        slope = (end[:, 0] - start[:, 0]) / np.where(end[:, 1] == start[:, 1], 1, end[:, 1] - start[:, 1])
        crossed += (passes & (east < start[:, 0] + (north - start[:, 1]) * slope)).sum(axis=1)
    inside: npt.NDArray[np.bool_] = crossed % 2 == 1
    return inside


def _edges(line: Places) -> tuple[Places, Places]:
    """Starts and ends of a line's edges that are at the latitudes of the ships and not west of them."""
    start, end = line[:-1], line[1:]
    low, high = np.minimum(start, end), np.maximum(start, end)
    is_there = (high[:, 0] > WEST) & (high[:, 1] > SOUTH) & (low[:, 1] < NORTH)
    return start[is_there], end[is_there]


def distance_km(places: Places, lines: list[Places]) -> npt.NDArray[np.float64]:
    """How far each place is from the nearest line."""
    found = np.full(len(places), np.inf)
    for line in lines:
        for start, end in zip(*(corners * DEGREE_KM for corners in _edges(line)), strict=True):
            along = end - start
            share = np.clip((places * DEGREE_KM - start) @ along / max(along @ along, 1e-12), 0, 1)
            found = np.minimum(found, np.hypot(*(places * DEGREE_KM - start - share[:, None] * along).T))
    return found


def dry(places: Places) -> Places:
    """Those places that are on land, farther than `SHORE_KM` from water."""
    coast, waters = land(), canals()
    on_land = places[is_in(places, coast) & ~is_in(places, [waters[name] for name in LAKES])]
    return on_land[distance_km(on_land, [*waters.values(), *coast]) > SHORE_KM]


def sailed() -> Places:
    """Each ship's positions, and places between them where the page draws a line."""
    ships: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for at_s, fields in reports():
        ships[fields["device_id"]].append((at_s, fields["longitude"], fields["latitude"]))
    return np.array([place for track in ships.values() for leg in pairwise(track) for place in _steps(*leg)])


def _steps(start: tuple[float, float, float], end: tuple[float, float, float]) -> Iterator[tuple[float, float]]:
    yield start[1:]
    yield end[1:]
    if end[0] - start[0] > GAP_S:
        return
    east, north = end[1] - start[1], end[2] - start[2]
    steps = int(hypot(*(np.array([east, north]) * DEGREE_KM)) / STEP_KM)
    for step in range(1, steps + 1):
        share = step / (steps + 1)
        yield start[1] + share * east, start[2] + share * north


def test_ships_sail_on_water() -> None:
    places = np.unique(sailed(), axis=0)
    assert len(places) > 15_000
    assert dry(places).tolist() == []


def test_the_desert_is_land() -> None:
    ismailia_road, sinai = (32.0, 30.5), (32.8, 30.3)
    bay, bitter_lake, canal = (32.55, 29.8), (32.4, 30.33), (32.57, 30.1)
    assert dry(np.array([ismailia_road, bay, sinai, bitter_lake, canal])).tolist() == [[*ismailia_road], [*sinai]]
