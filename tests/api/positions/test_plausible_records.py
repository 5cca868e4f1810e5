"""Implausible positions in records, exports and tracks: the same ones wherever a track is cut."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.positions.plausibility import OFF, Limits, Position
from api.positions.plausibility import left_out as outliers
from api.records.range_query import Question, shown_page
from api.snapshot.snapshot import Wanted
from tests.api.conftest import Box, box_on
from tests.api.positions.test_plausible_sql import (
    CONNECTION,
    DAY,
    KM,
    STEPS,
    TRACKS,
    Fix,
    Unsaved,
    sent,
    walked,
    with_outlier,
)
from tests.api.records.test_export_tracks import of_gpx, of_kml
from tests.api.stores import MIDNIGHT_US
from tests.conftest import RedisServer

LEFT_OUT = {"flight": 1, "taxi": 1, "cold": 13, "moved": 0}


def moved() -> list[Fix]:
    """An hour at one place, and an hour at another, 1,100 km away: it was off for a minute."""
    places = [50.0, 60.0]
    return [(n * 60.0, places[n >= 30] + n * 0.3 * KM, 10.0, None, None) for n in range(60)]


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Each track, its second half unsaved."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("plausible")) as found:
        for place in (0, 30):
            for device, fixes in {**TRACKS, "moved": moved()}.items():
                found.append(*(sent(device, fix) for fix in fixes[place : place + 30]))
            if place == 0:
                found.save()
        yield found


def page(box: Box, *query: tuple[str, str | int]) -> dict[str, Any]:
    answer = box.get("/v1/records", *query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def placed(rows: list[dict[str, Any]]) -> int:
    return sum(row["latitude"] is not None for row in rows)


@pytest.mark.parametrize("device", LEFT_OUT)
def test_a_page_has_each_record_and_counts_the_positions_that_it_leaves_out(box: Box, device: str) -> None:
    everything, plausible = (page(box, ("device_id", device), ("plausible", text)) for text in ("false", "true"))
    assert (placed(everything["records"]), len(everything["records"])) == (60, 60)
    assert (placed(plausible["records"]), len(plausible["records"])) == (60 - LEFT_OUT[device], 60)
    assert plausible["implausible"] == LEFT_OUT[device]
    assert "implausible" not in everything
    assert page(box, ("device_id", device)) == everything
    for before, after in zip(everything["records"], plausible["records"], strict=True):
        assert {**after, "latitude": 0, "longitude": 0} == {**before, "latitude": 0, "longitude": 0}


@pytest.mark.parametrize(("kind", "is_default"), [("csv", False), ("ndjson", False), ("geojson", True), ("gpx", True)])
def test_other_formats_count_in_a_header(box: Box, kind: str, is_default: bool) -> None:
    taxi = ("/v1/records", ("device_id", "taxi"), ("format", kind))
    assert box.get(*taxi).headers.get("implausible") == ("1" if is_default else None)
    assert box.get(*taxi, ("plausible", "true")).headers["implausible"] == "1"
    assert "implausible" not in box.get(*taxi, ("plausible", "false")).headers


@pytest.mark.parametrize("path", ["/v1/records", "/v1/export"])
@pytest.mark.parametrize(("kind", "read"), [("gpx", of_gpx), ("kml", of_kml)])
def test_tracks_have_no_implausible_points(box: Box, path: str, kind: str, read: Any) -> None:
    tracks = dict(read(box.get(path, ("format", kind)).content))
    everything = dict(read(box.get(path, ("format", kind), ("plausible", "false")).content))
    for device, count in LEFT_OUT.items():
        assert sum(map(len, everything[device])) == 60
        assert sum(map(len, tracks[device])) == 60 - count


@pytest.mark.parametrize("kind", ["gpx", "kml"])
def test_a_track_is_not_drawn_across_a_jump(box: Box, kind: str) -> None:
    read = {"gpx": of_gpx, "kml": of_kml}[kind]
    query = (("device_id", "moved"), ("format", kind))
    for more, lengths in [((), [30, 30]), ((("max_jump_kmh", "100000"),), [60]), ((("plausible", "false"),), [60])]:
        [(_, segments)] = read(box.get("/v1/export", *query, *more).content)
        assert [len(segment) for segment in segments] == lengths


@pytest.mark.parametrize("query", [(), (("device_id", "taxi"),), (("start", "2026-01-10T00:20:00Z"),)])
def test_an_export_has_the_positions_of_pages(box: Box, query: tuple[tuple[str, str], ...]) -> None:
    asked = (*query, ("plausible", "true"))
    rows = list(csv.DictReader(io.StringIO(box.get("/v1/export", ("format", "csv"), *asked).text)))
    exported = {row["id"]: float(row["latitude"]) if row["latitude"] else None for row in rows}
    assert exported == {str(row["id"]): row["latitude"] for row in page(box, *asked)["records"]}
    assert None in exported.values()


def test_a_map_of_features_has_no_implausible_points(box: Box) -> None:
    features = json.loads(box.get("/v1/export", ("format", "geojson"), ("device_id", "taxi")).content)["features"]
    assert [number for number, feature in enumerate(features) if feature["geometry"] is None] == [20]


def test_an_outlier_is_in_no_area(box: Box) -> None:
    area = ("bbox", "33,29,35,31")
    assert len(page(box, area)["records"]) == 1
    assert page(box, area, ("plausible", "true"))["records"] == []
    for kind, empty in (("csv", 1), ("ndjson", 0)):
        assert len(box.get("/v1/export", area, ("format", kind), ("plausible", "true")).text.splitlines()) == empty


@pytest.mark.parametrize("path", ["/v1/records", "/v1/export"])
def test_an_outlier_is_no_point_of_a_simplified_track(box: Box, path: str) -> None:
    query = (("device_id", "taxi"), ("simplify_m", 100), ("format", "ndjson"))
    points = [json.loads(line)["longitude"] for line in box.get(path, *query, ("plausible", "true")).text.splitlines()]
    assert points == [31.0, 31.0]
    assert 34.0 in [json.loads(line)["longitude"] for line in box.get(path, *query).text.splitlines()]


@pytest.mark.parametrize(
    "query", [("max_jump_kmh", "0"), ("max_jump_kmh", "x"), ("max_accuracy_m", "-1"), ("plausible", "no")]
)
def test_what_is_refused(box: Box, query: tuple[str, str]) -> None:
    for path in ("/v1/records", "/v1/export"):
        assert box.get(path, query).status_code == 400


# Any track --------------------------------------------------------------------------------------------


def implausible(fixes: list[Fix]) -> set[int]:
    """The rule for the whole track at once: numbers of the records whose positions are left out."""
    alone = {
        number
        for number, (_, latitude, longitude, _, accuracy_m) in enumerate(fixes)
        if (latitude, longitude) == (0, 0) or (accuracy_m or 0) > Limits().max_accuracy_m
    }
    rest = sorted((round(fix[0] * 1e6), number) for number, fix in enumerate(fixes) if number not in alone)
    positions = [Position(us, *fixes[number][1:3]) for us, number in rest]
    return alone | {rest[place][1] for place in outliers(positions, Limits())}


def pages(fixes: list[Fix], ends: tuple[int, int], limit: int, limits: Limits) -> Iterator[tuple[list[Any], Any]]:
    question = Question(Wanted((), *ends), limit=limit, limits=limits)
    while True:
        with CONNECTION.cursor() as cursor:
            shown = shown_page(cursor, Unsaved(fixes), question)  # type: ignore[arg-type]
        yield shown.records.select(["id", "latitude"]).to_pylist(), shown.implausible
        if shown.end is None:
            return
        question = question._replace(after=shown.end)


@settings(deadline=None, max_examples=15)
@given(STEPS, st.data(), st.lists(st.floats(0, 1), max_size=2), st.integers(1, 50))
def test_the_same_positions_are_left_out_wherever_a_track_is_cut(
    steps: list[tuple[int, float, float | None]], data: st.DataObject, cuts: list[float], limit: int
) -> None:
    fixes = walked(steps)
    for place in sorted(data.draw(st.sets(st.integers(0, len(fixes) - 1), max_size=4), label="places"), reverse=True):
        fixes = with_outlier(fixes, place, data.draw(st.sampled_from(["far", "bad", "zero"]), label="kind"))
    last_us = round(fixes[-1][0] * 1e6)
    at_us = sorted({DAY[0], *(MIDNIGHT_US + round(cut * last_us) for cut in cuts), DAY[1]})
    found, count, ids = set[int](), 0, list[int]()
    for ends in pairwise(at_us):
        for rows, implausible_count in pages(fixes, ends, limit, Limits()):
            ids += [row["id"] for row in rows]
            found |= {row["id"] for row in rows if row["latitude"] is None}
            count += implausible_count
    assert sorted(ids) == list(range(len(fixes)))
    assert (found, count) == (implausible(fixes), len(found))
    assert all(row["latitude"] is not None for rows, _ in pages(fixes, DAY, limit, OFF) for row in rows)
