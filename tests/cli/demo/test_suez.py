"""The ships at Suez: what the file says, moved to the story's clock, with speeds and headings that ships have."""

from __future__ import annotations

import gzip
from itertools import pairwise

import pytest

from cli.demo.story import Report
from cli.demo.suez import FILE, LAST, LIVE_FROM, MINUTE_S, STORY, Place, bearing_deg, clock, metres, reports
from telemetry.codec.record_parser import Arrival, read

ROWS = 22_287
SHIPS = 256
FASTEST_KMH = 50.0
HOUR_S = 3_600.0


@pytest.fixture(scope="module")
def told() -> list[Report]:
    return list(reports())


def test_every_position_is_told_in_the_order_of_time(told: list[Report]) -> None:
    assert len(told) == ROWS
    assert len({report.fields["device_id"] for report in told}) == SHIPS
    assert all(a.at_s <= b.at_s for a, b in pairwise(told))
    assert told[-1].at_s == STORY.length_s == (LAST - LIVE_FROM).total_seconds()


def test_positions_are_those_of_the_file_at_their_minutes(told: list[Report]) -> None:
    with gzip.open(FILE, "rt") as text:
        rows = [line.split(",") for line in text.read().splitlines()[1:]]
    in_file = sorted((day[6:10] + day[3:5] + day[:2] + day[10:], float(lat), float(lon)) for _, day, lon, lat in rows)
    of_story = sorted(
        (f["story_time"][:16].replace("-", "").replace("T", " "), f["latitude"], f["longitude"])
        for f in (report.fields for report in told)
    )
    assert of_story == in_file


def test_positions_of_one_minute_are_spread_over_it(told: list[Report]) -> None:
    by_ship: dict[str, list[float]] = {}
    for report in told:
        by_ship.setdefault(report.fields["device_id"], []).append(report.at_s)
    assert all(a < b for times in by_ship.values() for a, b in pairwise(times))
    assert sum(at_s % MINUTE_S > 0 for times in by_ship.values() for at_s in times) > 400


def test_speeds_and_headings_are_a_ships(told: list[Report]) -> None:
    speeds = [report.fields["speed_kmh"] for report in told if "speed_kmh" in report.fields]
    assert len(speeds) > 0.9 * ROWS
    assert 30 < max(speeds) < FASTEST_KMH
    assert all(0 <= report.fields.get("heading_deg", 0) < 360 for report in told)


def test_the_ever_given_runs_aground_and_stays(told: list[Report]) -> None:
    hers = [report for report in told if report.fields["device_id"] == "ever-given"]
    (entering,) = (report for report in hers if report.fields["story_time"] == "2021-03-23T05:32:00Z")
    assert entering.fields["speed_kmh"] > 20
    assert 0 < entering.fields["heading_deg"] < 30
    aground = [report for report in hers if report.at_s > 5.9 * HOUR_S]
    assert len(aground) > 150
    assert all(report.fields["speed_kmh"] < 1 for report in aground)
    assert {round(report.fields["latitude"], 3) for report in aground} == {30.018}


def test_a_collector_takes_every_one(told: list[Report]) -> None:
    arrival = Arrival(2_000_000_000_000_000, 3_000_000_000_000_000, "kmh", 10_000)
    for report in told:
        sent = read({**report.fields, "timestamp": "2026-11-24T10:00:00Z"}, "json", "http", arrival)
        assert sent.record.speed_kmh == report.fields.get("speed_kmh")


def test_distances_and_bearings() -> None:
    suez, said = Place(0, 29.97, 32.55), Place(0, 31.26, 32.31)
    assert metres(suez, said) == pytest.approx(145_300, rel=0.01)
    assert bearing_deg(suez, said) == pytest.approx(351, abs=1)
    assert bearing_deg(said, suez) == pytest.approx(171, abs=1)


def test_the_clock_is_read_by_people() -> None:
    assert clock(5.75 * HOUR_S) == "23 March 2021, 05:45"
    assert clock(-72 * HOUR_S) == "20 March 2021, 00:00"
