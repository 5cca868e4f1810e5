"""The filter of implausible positions in trips, stops and summaries: single tracks over HTTP, and any track in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.analytics import trips
from api.analytics.summary import Question, page
from api.analytics.summary_sql import FIELDS, SummaryQuery
from api.positions.plausibility import OFF, Limits
from api.snapshot.snapshot import Snapshot, Wanted
from api.tracks.trip_detection import Rules
from telemetry.archive.schema import COLUMNS, open_duckdb
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from tests.api.conftest import Box, box_on
from tests.api.stores import MIDNIGHT_US
from tests.conftest import RedisServer

KM = 1 / 111.19508
"""A kilometre as degrees of latitude."""

Fix = tuple[float, float, float, float | None, float | None]
"""Seconds since midnight, latitude, longitude, speed, accuracy."""


def flight() -> list[Fix]:
    """850 km/h along a meridian. One record without a speed has a wrong time: 2,400 km/h to it."""
    fixes: list[Fix] = [(n * 60.0, 10 + n * 14.1667 * KM, 20.0, 840.8 if n == 30 else 820.0, None) for n in range(60)]
    fixes[40] = (39 * 60 + 21.0, fixes[40][1], 20.0, None, None)
    return fixes


def taxi() -> list[Fix]:
    """40 km/h, no speeds; one position lies 300 km off."""
    fixes: list[Fix] = [(n * 60.0, 30 + n * 0.6667 * KM, 31.0, None, None) for n in range(60)]
    fixes[20] = (20 * 60.0, fixes[20][1], 34.0, None, None)
    return fixes


def cold_start() -> list[Fix]:
    """0/0 for ten minutes and now and then, a position of a cell tower, else parked."""
    fixes: list[Fix] = [(n * 60.0, 51.5, -0.1, 0.0, 8.0) for n in range(60)]
    for n in (*range(10), 25, 40):
        fixes[n] = (n * 60.0, 0.0, -0.0, 0.0, None)
    fixes[30] = (30 * 60.0, 51.6, -0.2, 0.0, 2_500.0)
    return fixes


TRACKS = {"flight": flight(), "taxi": taxi(), "cold": cold_start()}


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Each track, its second half unsaved, newest records first."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("plausible")) as found:
        for place in (0, 30):
            for device, fixes in TRACKS.items():
                found.append(*(sent(device, fix) for fix in reversed(fixes[place : place + 30])))
            if place == 0:
                found.save()
        yield found


def sent(device: str, fix: Fix) -> Sent:
    s, latitude, longitude, speed_kmh, accuracy_m = fix
    at_us = MIDNIGHT_US + round(s * 1e6)
    return Sent(device, Record(at_us, "tcp", "json", latitude, longitude, None, speed_kmh, accuracy_m=accuracy_m))


def answer(box: Box, name: str, device: str, *query: tuple[str, str | int]) -> dict[str, Any]:
    found = box.get(f"/v1/{name}", ("device_id", device), *query)
    assert found.status_code == 200, found.text
    return found.json()  # type: ignore[no-any-return]


def summary(box: Box, device: str, *query: tuple[str, str | int]) -> dict[str, Any]:
    [found] = answer(box, "summary", device, *query)["summaries"]
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("device", "speed_kmh_max", "distance_km"), [("flight", 840.8, 59 * 14.1667), ("taxi", 40.0, 59 * 0.6667)]
)
def test_trips_and_summaries_agree(box: Box, device: str, speed_kmh_max: float, distance_km: float) -> None:
    page = answer(box, "trips", device)
    [trip], day = page["trips"], summary(box, device)
    assert (trip["speed_kmh_max"], day["speed_kmh_max"]) == pytest.approx((speed_kmh_max,) * 2, rel=1e-4)
    assert trip["distance_km"] == pytest.approx(distance_km, rel=1e-4)
    # a first record without a speed stands still, and the way from it is the trip's
    assert day["distance_km"] == pytest.approx(distance_km, rel=1e-4)
    assert (page["implausible"], day["implausible"], day["count"]) == (1, 1, 60)
    assert day["bbox"][2] - day["bbox"][0] == 0


def test_a_receiver_without_a_fix_stands_where_it_was(box: Box) -> None:
    page = answer(box, "stops", "cold")
    [stop], day = page["stops"], summary(box, "cold")
    assert (stop["latitude"], stop["longitude"], stop["duration_s"]) == (51.5, -0.1, 49 * 60)
    assert (page["implausible"], day["implausible"]) == (13, 13)
    assert (day["distance_km"], day["bbox"]) == (0, [-0.1, 51.5, -0.1, 51.5])
    assert answer(box, "trips", "cold")["trips"] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ([], 13),
        ([("max_accuracy_m", "2500")], 12),
        ([("max_accuracy_m", "7.9")], 60),
        ([("plausible", "false")], 0),
    ],
)
def test_limits_are_parameters(box: Box, query: list[tuple[str, str | int]], expected: int) -> None:
    for name in ("trips", "stops"):
        assert answer(box, name, "cold", *query)["implausible"] == expected
    assert summary(box, "cold", *query)["implausible"] == expected


def test_a_jump_may_be_allowed(box: Box) -> None:
    assert summary(box, "taxi", ("max_jump_kmh", 20_000))["speed_kmh_max"] > 10_000
    assert answer(box, "trips", "taxi", ("max_jump_kmh", 20_000))["trips"][0]["speed_kmh_max"] > 10_000
    [trip] = answer(box, "trips", "taxi", ("plausible", "false"))["trips"]
    assert trip["speed_kmh_max"] == pytest.approx(summary(box, "taxi", ("plausible", "false"))["speed_kmh_max"])
    assert trip["distance_km"] > 600


def test_speeds_of_positions_stand_beside_sent_ones(box: Box) -> None:
    """Requested for one device, and for the whole fleet, where hourly sums give the speeds of devices that sent one."""
    query = "/v1/summary", ("fields", "count,speed_kmh_max"), ("every", "1h")
    found = {one["device_id"]: one["speed_kmh_max"] for one in box.get(*query).json()["summaries"]}
    assert found == {"cold": 0.0, "flight": 840.8, "taxi": pytest.approx(40.0, rel=1e-4)}


def test_records_stay(box: Box) -> None:
    for device, fixes in TRACKS.items():
        records = box.get("/v1/records", ("device_id", device)).json()["records"]
        assert len(records) == len(fixes)
    assert [one["longitude"] for one in box.get("/v1/records", ("device_id", "taxi")).json()["records"]][20] == 34


@pytest.mark.parametrize(
    "query", [("max_jump_kmh", "0"), ("max_jump_kmh", "x"), ("max_accuracy_m", "-1"), ("plausible", "no")]
)
def test_what_is_refused(box: Box, query: tuple[str, str]) -> None:
    for name in ("summary", "trips", "stops"):
        assert box.get(f"/v1/{name}", query).status_code == 400


# Any track --------------------------------------------------------------------------------------------

CONNECTION = open_duckdb()
USUAL = Limits()
STEPS = st.lists(
    st.tuples(st.sampled_from([5, 60, 60, 300, 700, 4_000]), st.floats(-1, 1), st.sampled_from([None, 0.0, 50.0])),
    min_size=4,
    max_size=40,
)


class Unsaved:
    """Snapshots of records that are in no file."""

    def __init__(self, fixes: list[Fix]) -> None:
        self._table = pa.Table.from_pylist([_row(number, fix) for number, fix in enumerate(fixes)], COLUMNS)

    def take(self, wanted: Wanted) -> Any:
        """All of them, which `Snapshot.some` and `Snapshot.records` may be."""
        snapshot = Snapshot([], (), 1, wanted)
        snapshot.records = self._table
        snapshot.some = lambda names: self._table.select(list(names))  # type: ignore[method-assign]
        return snapshot


def _row(number: int, fix: Fix) -> dict[str, Any]:
    s, latitude, longitude, speed_kmh, accuracy_m = fix
    at = {"timestamp": MIDNIGHT_US + round(s * 1e6), "received_at": 0, "id": number, "device_id": "d"}
    return {**at, "latitude": latitude, "longitude": longitude, "speed_kmh": speed_kmh, "accuracy_m": accuracy_m}


def walked(steps: list[tuple[int, float, float | None]]) -> list[Fix]:
    """At most 120 km/h."""
    s, latitude = 0.0, 40.0
    found: list[Fix] = []
    for step_s, part, kmh in steps:
        s, latitude = s + step_s, latitude + part * step_s / 30 * KM
        found.append((s, latitude, 8.0, kmh, None))
    return found


def with_outlier(fixes: list[Fix], place: int, kind: str) -> list[Fix]:
    """One more record, which has no speed: far off, of bad accuracy, or at 0/0."""
    s, latitude, longitude, _, _ = fixes[place]
    odd = {"far": (latitude - 70, 170.0, None), "bad": (latitude + 1, longitude, 1_500.0), "zero": (0.0, 0.0, None)}
    at = odd[kind]
    return [*fixes[: place + 1], (s + 1, at[0], at[1], None, at[2]), *fixes[place + 1 :]]


def told(fixes: list[Fix], start_us: int, end_us: int, limits: Limits = USUAL) -> tuple[Any, list[Any], int]:
    """The summary of a range, its trips and stops, and the count of positions left out, which both tell."""
    snapshots, wanted = Unsaved(fixes), Wanted((), start_us, end_us)
    with CONNECTION.cursor() as cursor:
        query = SummaryQuery([*FIELDS], start_us, end_us, None, 3.0, 300_000_000, limits)
        found = page(cursor, snapshots, Question(wanted, query))  # type: ignore[arg-type]
        question = trips.Question(wanted, Rules(min_stop_s=60, min_trip_m=50), limits, 1_000, None)
        pages = [trips.page(cursor, snapshots, question, show) for show in (trips.trip, trips.stop)]  # type: ignore[arg-type]
    summaries = json.loads(found.summaries)
    counts = {part.implausible for part in pages} | {one["implausible"] for one in summaries}
    assert len(counts) <= 2 if not summaries else len(counts) == 1
    return summaries, [[*part.answers] for part in pages], max(counts)


DAY = (MIDNIGHT_US - DAY_US, MIDNIGHT_US + 3 * DAY_US)


@settings(deadline=None, max_examples=12)
@given(STEPS)
def test_of_a_track_without_outliers_nothing_is_left_out(steps: list[tuple[int, float, float | None]]) -> None:
    fixes = walked(steps)
    found, unfiltered = told(fixes, *DAY), told(fixes, *DAY, OFF)
    assert found == unfiltered
    assert found[2] == 0


@settings(deadline=None, max_examples=18)
@given(STEPS, st.data(), st.sampled_from(["far", "far", "bad", "zero"]))
def test_one_outlier_changes_the_count_alone(
    steps: list[tuple[int, float, float | None]], data: st.DataObject, kind: str
) -> None:
    fixes = walked(steps)
    place = data.draw(st.integers(0, len(fixes) - 1), label="place")
    (before, moves, _), (after, moves_after, count) = told(fixes, *DAY), told(with_outlier(fixes, place, kind), *DAY)
    assert (moves_after, count) == (moves, 1)
    changed = {"count", "implausible", "last"}
    assert {k: v for k, v in after[0].items() if k not in changed} == {
        k: v for k, v in before[0].items() if k not in changed
    }


@settings(deadline=None, max_examples=12)
@given(STEPS, st.data(), st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_parts_add_up_wherever_outliers_and_cuts_are(
    steps: list[tuple[int, float, float | None]], data: st.DataObject, cuts: list[float]
) -> None:
    fixes = walked(steps)
    for place in sorted(data.draw(st.sets(st.integers(0, len(fixes) - 1), max_size=4), label="places"), reverse=True):
        fixes = with_outlier(fixes, place, data.draw(st.sampled_from(["far", "bad", "zero"]), label="kind"))
    last_us = round(fixes[-1][0] * 1e6)
    at_us = sorted({DAY[0], *(MIDNIGHT_US + round(cut * last_us) for cut in cuts), DAY[1]})
    whole = told(fixes, *DAY)
    parts = [told(fixes, *ends) for ends in pairwise(at_us)]
    for name in ("count", "distance_km", "implausible"):
        total = sum(one[name] or 0 for part in parts for one in part[0])
        assert total == pytest.approx(whole[0][0][name] or 0, abs=1e-4)
    assert sum(part[2] for part in parts) == whole[2]
    for kind, name in ((0, "distance_km"), (1, "duration_s")):
        total = sum(getattr(one, name) for part in parts for one in part[1][kind])
        assert total == pytest.approx(sum(getattr(one, name) for one in whole[1][kind]), abs=1e-3)
