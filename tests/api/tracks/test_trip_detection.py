"""Trips and stops: from runs, from records by SQL and by a model in plain Python, and over HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.analytics import trip_sql, trips
from api.geo.area import Circle, distance_m
from api.positions.plausibility import OFF, Limits
from api.snapshot import neighbours, record_sql
from api.snapshot.neighbours import Around
from api.snapshot.snapshot import Snapshot, Wanted
from api.tracks.trip_detection import ALL_TIME, GAP, REST, WANDER_US, Cut, Move, Point, Rules, Run, Stop, Trip, moves
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import COLUMNS, open_duckdb
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.api.records.test_range_query import MIDNIGHT_US
from tests.conftest import RedisServer

CONNECTION = open_duckdb()
RULES, LIMITS = Rules(), Limits()
M = 1 / 111_195.08
"""A metre as degrees of latitude."""


class Fix(NamedTuple):
    """A record: s since the start, metres north, speed."""

    s: float
    north_m: float
    kmh: float | None = None


def table(fixes: list[Fix], device: str = "d") -> pa.Table:
    made = [
        {
            "device_id": device,
            "timestamp": MIDNIGHT_US + round(fix.s * 1e6),
            "received_at": 0,
            "id": number,
            "latitude": fix.north_m * M,
            "longitude": 10.0,
            "speed_kmh": fix.kmh,
        }
        for number, fix in enumerate(fixes)
    ]
    return pa.Table.from_pylist(made, COLUMNS)


def runs_of(fixes: list[Fix], rules: Rules = RULES) -> list[Run]:
    CONNECTION.register("fixes", table(fixes))
    found = [runs for _, runs, _ in trip_sql.runs(CONNECTION, "SELECT * FROM fixes", rules, ALL_TIME, OFF).devices]
    return found[0] if found else []


def moves_of(fixes: list[Fix], rules: Rules = RULES) -> list[tuple[str, float, float]]:
    """Kind, start and end in s."""
    return [
        (type(move).__name__.lower(), (move.start.us - MIDNIGHT_US) / 1e6, (move.end.us - MIDNIGHT_US) / 1e6)
        for move in moves(runs_of(fixes, rules), rules)
    ]


def stays(s: float, until_s: float, north_m: float, every_s: float = 60) -> list[Fix]:
    return [Fix(s + n * every_s, north_m, 0.0) for n in range(round((until_s - s) / every_s) + 1)]


def drives(s: float, until_s: float, north_m: float, to_m: float, every_s: float = 60) -> list[Fix]:
    """The records of a trip, without its ends."""
    count = round((until_s - s) / every_s)
    kmh = abs(to_m - north_m) / (until_s - s) * 3.6
    return [Fix(s + n * every_s, north_m + (to_m - north_m) * n / count, kmh) for n in range(1, count)]


DAY = [*stays(0, 600, 0), *drives(600, 1_800, 0, 10_000), *stays(1_800, 3_000, 10_000)]


def test_a_trip_lies_between_two_stops() -> None:
    assert moves_of(DAY) == [("stop", 0, 600), ("trip", 600, 1_800), ("stop", 1_800, 3_000)]
    [trip] = [move for move in moves(runs_of(DAY), RULES) if isinstance(move, Trip)]
    assert trip.distance_m == pytest.approx(10_000, rel=1e-6)
    assert trip.records == 21
    assert trip.speed_kmh_max == pytest.approx(30)


def test_a_short_halt_is_part_of_the_trip() -> None:
    way = [*drives(0, 600, 0, 5_000), *stays(600, 720, 5_000), *drives(720, 1_320, 5_000, 9_000)]
    assert moves_of(way) == [("trip", 60, 1_260)]


def test_a_receiver_whose_position_drifts_is_at_rest() -> None:
    fixes = [*stays(0, 600, 0), Fix(660, 20, 5.0), Fix(720, 5, 4.0), *stays(780, 1_200, 2)]
    assert moves_of(fixes) == [("stop", 0, 1_200)]


def test_a_gap_splits_a_trip() -> None:
    way = [*drives(0, 600, 0, 6_000), *drives(3_000, 3_600, 20_000, 26_000)]
    assert moves_of(way) == [("trip", 60, 540), ("trip", 3_060, 3_540)]


def test_a_tracker_that_sleeps_while_parked_is_at_rest() -> None:
    way = [*drives(0, 600, 0, 6_000), *drives(9_000, 9_600, 6_000, 0)]
    assert moves_of(way) == [("trip", 60, 540), ("stop", 540, 9_060), ("trip", 9_060, 9_540)]


def test_a_single_record_is_no_move() -> None:
    assert moves_of([Fix(0, 0, 0.0)]) == []
    assert moves_of([Fix(0, 0, 50.0)]) == []
    assert moves_of([]) == []


def test_missing_speeds_are_computed_from_positions() -> None:
    fixes = [Fix(fix.s, fix.north_m) for fix in DAY]
    assert moves_of(fixes) == [("stop", 0, 600), ("trip", 600, 1_860), ("stop", 1_860, 3_000)]


def test_the_maximum_of_a_trip_is_the_maximum_sent_speed() -> None:
    """One record of a flight has no speed, and is 20 km after the previous one: 1,200 km/h from positions."""
    fixes = [Fix(0, 0, 800.0), Fix(60, 13_400, 840.8), Fix(120, 33_400), Fix(180, 46_700, 800.0)]
    for sent, expected in ((fixes, 840.8), ([Fix(fix.s, fix.north_m) for fix in fixes], 1_200.0)):
        [trip] = [move for move in moves(runs_of(sent), RULES) if isinstance(move, Trip)]
        assert trip.speed_kmh_max == pytest.approx(expected, rel=1e-6)


# Compared with a model that reads record by record ---------------------------------------------------

FIXES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 60.0, 300.0, 599.0, 600.0, 601.0, 5_000.0]),
        st.sampled_from([0.0, 1.0, 50.0, 199.0, 400.0, 3_000.0]),
        st.sampled_from([None, 0.0, 3.0, 3.1, 60.0]),
    ),
    max_size=25,
)
RULE_SETS = st.sampled_from(
    [
        RULES,
        RULES._replace(min_stop_s=0, min_trip_m=0),
        RULES._replace(max_gap_s=60, rest_m=0),
        RULES._replace(stopped_kmh=0),
    ]
)


def along(steps: list[tuple[float, float, float | None]]) -> list[Fix]:
    fixes, s, north_m = [], 0.0, 0.0
    for step_s, step_m, kmh in steps:
        s, north_m = s + step_s, north_m + step_m
        fixes.append(Fix(s, north_m, kmh))
    return fixes


def runs_one_by_one(fixes: list[Fix], rules: Rules) -> list[Run]:
    found: list[Run] = []
    last: Fix | None = None
    for fix in fixes:
        point = Point(MIDNIGHT_US + round(fix.s * 1e6), fix.north_m * M, 10.0)
        hop_m = 0.0 if last is None else distance_m(Circle(last.north_m * M, 10.0, 0), point.latitude, 10.0)
        hop_s = 0.0 if last is None else fix.s - last.s
        kmh = fix.kmh if fix.kmh is not None else hop_m / hop_s * 3.6 if hop_s else 0.0
        before = 0 if hop_s <= rules.max_gap_s else REST if hop_m <= rules.rest_m else GAP
        is_still = kmh <= rules.stopped_kmh
        if not found or before or found[-1].is_still != is_still:
            found.append(Run(is_still, before, point, point, 1, hop_m, 0.0, kmh, hop_m, 0.0))
        else:
            run = found[-1]
            found[-1] = run._replace(
                last=point,
                records=run.records + 1,
                inner_m=run.inner_m + hop_m,
                inner_within_m=run.inner_m + hop_m,
                speed_kmh_max=max(run.speed_kmh_max or 0.0, kmh),
            )
        last = fix
    return found


@settings(deadline=None)
@given(FIXES, RULE_SETS)
def test_sql_makes_the_same_runs_as_the_model(steps: list[tuple[float, float, float | None]], rules: Rules) -> None:
    fixes = along(steps)
    found, expected = runs_of(fixes, rules), runs_one_by_one(fixes, rules)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one[:2] == other[:2]
        assert (one.first.us, one.last.us, one.records) == (other.first.us, other.last.us, other.records)
        for name in ("entry_m", "inner_m", "speed_kmh_max"):
            assert math.isclose(getattr(one, name), getattr(other, name), rel_tol=1e-6, abs_tol=1e-6)


@settings(deadline=None)
@given(FIXES, RULE_SETS)
def test_moves_do_not_overlap_and_follow_the_rules(
    steps: list[tuple[float, float, float | None]], rules: Rules
) -> None:
    fixes = along(steps)
    found = list(moves(runs_one_by_one(fixes, rules), rules))
    times = [us for move in found for us in (move.start.us, move.end.us)]
    assert times == sorted(times)
    for move in found:
        if isinstance(move, Stop):
            assert move.end.us - move.start.us >= rules.min_stop_s * 1e6
        else:
            assert move.distance_m >= rules.min_trip_m or move.end.us - move.start.us > WANDER_US
    whole_m = sum(step_m for _, step_m, _ in steps[1:])
    assert way_m(found) <= whole_m + 1e-3


def way_m(found: list[Move]) -> float:
    return sum(move.distance_m for move in found if isinstance(move, Trip))


# Compared with the documented rules, applied to stretches of records ----------------------------------


class Piece(NamedTuple):
    """A record, or a rest between two (0 records): its start and end (s), and the distance from the previous piece; for
    a rest, the distance within it."""

    is_still: bool
    start_s: float
    end_s: float
    way_m: float
    records: int


def pieces(fixes: list[Fix], rules: Rules) -> list[list[Piece]]:
    """Records and rests, divided at gaps."""
    found: list[list[Piece]] = []
    for number, fix in enumerate(fixes):
        last = fixes[number - 1] if number else None
        way_m = 0.0 if last is None else distance_m(Circle(last.north_m * M, 10.0, 0), fix.north_m * M, 10.0)
        pause_s = 0.0 if last is None else fix.s - last.s
        kmh = fix.kmh if fix.kmh is not None else way_m / pause_s * 3.6 if pause_s else 0.0
        if last is None or (pause_s > rules.max_gap_s and way_m > rules.rest_m):
            found.append([])
            way_m = 0.0
        elif pause_s > rules.max_gap_s:
            found[-1].append(Piece(True, last.s, fix.s, way_m, 0))
            way_m = 0.0
        found[-1].append(Piece(kmh <= rules.stopped_kmh, fix.s, fix.s, way_m, 1))
    return found


def stretches(of: list[Piece]) -> list[list[Piece]]:
    return [list(group) for _, group in groupby(of, key=lambda piece: piece.is_still)]


def way_of(stretch: list[Piece]) -> float:
    return sum(piece.way_m for piece in stretch)


def with_state(stretch: list[Piece], is_still: bool) -> list[Piece]:
    return [piece._replace(is_still=is_still) for piece in stretch]


def without_short_stops(of: list[Piece], rules: Rules) -> list[Piece]:
    found: list[Piece] = []
    for stretch in stretches(of):
        is_long = stretch[-1].end_s - stretch[0].start_s >= rules.min_stop_s
        found += with_state(stretch, stretch[0].is_still and is_long)
    return found


def without_short_trips(of: list[Piece], rules: Rules) -> list[Piece]:
    if not any(piece.is_still for piece in of):
        return of
    found: list[Piece] = []
    every = stretches(of)
    for number, stretch in enumerate(every):
        found += with_state(stretch, stretch[0].is_still or not is_trip(every, number, rules))
    return found


def is_trip(every: list[list[Piece]], number: int, rules: Rules) -> bool:
    """True if a moving stretch from stop to stop is long enough in distance or duration."""
    stretch = every[number]
    start_s, end_s, way_m = stretch[0].start_s, stretch[-1].end_s, way_of(stretch)
    if number:
        start_s = every[number - 1][-1].end_s
    if number + 1 < len(every):
        after = every[number + 1][0]
        end_s, way_m = after.start_s, way_m + (after.way_m if after.records else 0.0)
    return way_m >= rules.min_trip_m or end_s - start_s > WANDER_US / 1e6


def by_the_rules(fixes: list[Fix], rules: Rules) -> Iterator[tuple[str, float, float, int, float]]:
    """Kind, start and end in s, number of records and, for a trip, metres."""
    for connected in pieces(fixes, rules):
        found = stretches(without_short_trips(without_short_stops(connected, rules), rules))
        for number, stretch in enumerate(found):
            start_s, end_s = stretch[0].start_s, stretch[-1].end_s
            records = sum(piece.records for piece in stretch)
            if stretch[0].is_still:
                if end_s - start_s >= rules.min_stop_s:
                    yield "stop", start_s, end_s, records, 0.0
                continue
            way_m = way_of(stretch)
            if number:
                start_s, records = found[number - 1][-1].end_s, records + 1
            if number + 1 < len(found):
                after = found[number + 1][0]
                end_s, records = after.start_s, records + 1
                way_m += after.way_m if after.records else 0.0
            if is_trip(found, number, rules):
                yield "trip", start_s, end_s, records, way_m


def described(move: Move) -> tuple[str, float, float, int, float]:
    start_s, end_s = ((us - MIDNIGHT_US) / 1e6 for us in (move.start.us, move.end.us))
    if isinstance(move, Stop):
        return "stop", start_s, end_s, move.records, 0.0
    return "trip", start_s, end_s, move.records, move.distance_m


@settings(deadline=None, max_examples=300)
@given(FIXES, RULE_SETS)
def test_moves_follow_the_documented_rules(steps: list[tuple[float, float, float | None]], rules: Rules) -> None:
    fixes = along(steps)
    found, expected = list(map(described, moves(runs_of(fixes, rules), rules))), list(by_the_rules(fixes, rules))
    assert [move[:4] for move in found] == [move[:4] for move in expected]
    assert [move[4] for move in found] == pytest.approx([move[4] for move in expected], rel=1e-6, abs=1e-3)


def test_short_stops_around_a_rest_are_one_stop() -> None:
    still = [Fix(660, 6_000, 0.0), Fix(720, 6_000, 0.0), Fix(9_000, 6_000, 0.0), Fix(9_060, 6_000, 0.0)]
    way = [*drives(0, 660, 0, 6_000), *still, *drives(9_060, 9_660, 6_000, 0)]
    assert moves_of(way) == [("trip", 60, 660), ("stop", 660, 9_060), ("trip", 9_060, 9_600)]


def test_the_distance_over_a_gap_does_not_count() -> None:
    way = [*drives(0, 600, 0, 6_000), Fix(3_000, 20_000, 4.0), *stays(3_060, 3_600, 20_010)]
    assert moves_of(way) == [("trip", 60, 540), ("stop", 3_000, 3_600)]


def test_the_distance_to_the_next_stop_belongs_to_the_trip() -> None:
    """850 of 900 m lie between the last moving record and the first one that stands still."""
    fixes = [*stays(0, 600, 0), Fix(660, 50, 20.0), *stays(720, 1_320, 900)]
    assert moves_of(fixes) == [("stop", 0, 600), ("trip", 600, 720), ("stop", 720, 1_320)]


# Ranges -----------------------------------------------------------------------------------------------

DAY_S = 86_400.0


def within(fixes: list[Fix], start_s: float, end_s: float, rules: Rules = RULES) -> list[Move]:
    """The moves of a range of unsaved records."""
    wanted = Wanted((), MIDNIGHT_US + round(start_s * 1e6), MIDNIGHT_US + round(end_s * 1e6))
    CONNECTION.register("tail", table(fixes))
    look = trips.look_of(rules, LIMITS)
    columns = trip_sql.columns(LIMITS)
    around = Around(CONNECTION, Snapshot([], (), 1, look.wide(wanted)), columns, has_tail=True)
    source = around.source(wanted, look)
    assert source is not None
    found = trip_sql.runs(CONNECTION, source, rules, Cut(wanted.start_us, wanted.end_us), LIMITS)
    return [move for _, runs, cut in found.devices for move in moves(runs, rules, cut)]


Told = tuple[str, int, int, float]


def joined_at(parts: list[list[Move]]) -> list[Told]:
    """Kind, start, end and metres of the moves of adjacent ranges, joined at their borders."""
    found: list[Told] = []
    for part in parts:
        for place, move in enumerate(part):
            name, way_m = type(move).__name__, getattr(move, "distance_m", 0.0)
            end_us = move.end.us
            last = found[-1] if found else None
            if place == 0 and last and last[0] == name and last[2] == move.start.us and takes_time(last, move):
                found[-1] = (name, last[1], end_us, last[3] + way_m)
            else:
                found.append((name, move.start.us, end_us, way_m))
    return found


def takes_time(last: Told, move: Move) -> bool:
    """Two moves of the same kind touch only at a range's border, or if both have the same time."""
    return last[1] < last[2] or move.start.us < move.end.us


LONG = st.lists(
    st.tuples(
        st.sampled_from(
            [
                0.0,
                1.0,
                60.0,
                60.0,
                60.0,
                299.0,
                300.0,
                600.0,
                601.0,
                3_599.0,
                5_000.0,
                DAY_S,
                30 * DAY_S,
                31 * DAY_S + 1,
            ]
        ),
        st.sampled_from([0.0, 0.0, 1.0, 50.0, 199.0, 201.0, 400.0, 3_000.0]),
        st.sampled_from([None, None, 0.0, 0.0, 3.0, 3.1, 60.0]),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(LONG, st.lists(st.floats(-0.05, 1.05), min_size=3, max_size=6), st.booleans(), RULE_SETS)
def test_parts_of_a_range_add_up_to_the_whole(
    steps: list[tuple[float, float, float | None]], cuts: list[float], is_at_records: bool, rules: Rules
) -> None:
    """Stopped time, moving time and metres, for any track, borders and gaps."""
    fixes = along(steps)
    first_s, last_s = fixes[0].s, fixes[-1].s
    at_s = sorted({round(first_s + cut * (last_s - first_s + 1), 3) for cut in cuts})
    if is_at_records:
        at_s = sorted({min((fix.s for fix in fixes), key=lambda s: abs(s - cut)) for cut in at_s})
    if len(at_s) < 2:
        return
    whole = within(fixes, at_s[0], at_s[-1], rules)
    parts = [within(fixes, start_s, end_s, rules) for start_s, end_s in pairwise(at_s)]
    for start_s, end_s, part in zip(at_s, at_s[1:], parts, strict=False):
        moments = [us for move in part for us in (move.start.us, move.end.us)]
        assert all(round(start_s * 1e6) <= us - MIDNIGHT_US <= round(end_s * 1e6) for us in moments)
    found, expected = joined_at(parts), joined_at([whole])
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    assert [one[3] for one in found] == pytest.approx([one[3] for one in expected], abs=1e-3)


def test_parking_over_midnight_is_part_of_both_days() -> None:
    """The tracker sleeps from 22:00 to 06:00."""
    parked = [Fix(79_200, 30_000, 0.0), Fix(108_000, 30_010, 0.0)]
    fixes = [*drives(75_000, 79_200, 0, 30_000), *parked, *drives(108_000, 112_000, 30_000, 0)]
    days = [within(fixes, day * DAY_S, (day + 1) * DAY_S) for day in range(2)]
    stops = [[(move.start.us, move.end.us) for move in day if isinstance(move, Stop)] for day in days]
    at_us = [MIDNIGHT_US + round(s * 1e6) for s in (79_200, DAY_S, 108_000)]
    assert stops == [[(at_us[0], at_us[1])], [(at_us[1], at_us[2])]]


def test_a_day_of_parking_without_a_record_is_a_stop() -> None:
    fixes = [Fix(0, 0, 0.0), Fix(29 * DAY_S, 10, 0.0)]
    [stop] = within(fixes, 14 * DAY_S, 15 * DAY_S)
    assert (stop.start.us - MIDNIGHT_US, stop.end.us - MIDNIGHT_US) == (14 * DAY_S * 1e6, 15 * DAY_S * 1e6)
    assert (type(stop), stop.records, stop.start.latitude) == (Stop, 0, 0.0)


def test_only_devices_without_near_records_are_searched_far_from_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that was silent for a week costs little in a fleet that reports all the time."""
    asked: list[Wanted] = []
    real = record_sql.records_in

    def records_in(files: Sequence[LiveFile], wanted: Wanted, names: Sequence[str], has_tail: bool) -> str:
        asked.append(wanted)
        return real(files, wanted, names, has_tail)

    monkeypatch.setattr(neighbours, "records_in", records_in)
    CONNECTION.register("fleet", pa.concat_tables([table([Fix(-7 * DAY_S, 0, 0.0)], "silent"), table(DAY, "a")]))
    wanted, look = Wanted((), MIDNIGHT_US + 4_500_000_000, MIDNIGHT_US + 4_600_000_000), trips.look_of(RULES, LIMITS)
    CONNECTION.register("tail", CONNECTION.sql("SELECT * FROM fleet").to_arrow_table())
    around = Around(CONNECTION, Snapshot([], (), 1, look.wide(wanted)), trip_sql.columns(LIMITS), has_tail=True)
    source = around.source(wanted, look)
    assert source is not None
    found = {device for (device,) in CONNECTION.execute(f"SELECT DISTINCT device_id FROM ({source})").fetchall()}
    assert found == {"a", "silent"}
    assert ["silent"] in [one.devices for one in asked]
    assert not any("a" in one.devices for one in asked if one.start_us < MIDNIGHT_US - DAY_S * 1e6)


def test_a_trip_over_midnight_is_divided_at_the_interpolated_position() -> None:
    fixes = drives(DAY_S - 630, DAY_S + 570, 0, 12_000)
    [[before], [after]] = [within(fixes, day * DAY_S, (day + 1) * DAY_S) for day in range(2)]
    assert isinstance(before, Trip)
    assert isinstance(after, Trip)
    assert before.end == after.start
    assert before.end.latitude == pytest.approx(6_300 * M)
    assert [before.distance_m, after.distance_m] == pytest.approx([5_700, 5_100], rel=1e-6)


def test_an_interpolated_position_on_the_180th_meridian() -> None:
    rows = table([Fix(0, 0, 60.0), Fix(600, 0, 60.0)]).to_pylist()
    rows[0]["longitude"], rows[1]["longitude"] = 179.9, -179.7
    CONNECTION.register("fixes", pa.Table.from_pylist(rows, COLUMNS))
    cut = Cut(MIDNIGHT_US, MIDNIGHT_US + 300_000_000)
    [(_, _, found)] = trip_sql.runs(CONNECTION, "SELECT * FROM fixes", RULES, cut, OFF).devices
    assert found.at_end is not None
    assert found.at_end.longitude == pytest.approx(-179.9)


# Over HTTP --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Two devices with records of the same day, half of one's saved; one that stands still; one without positions."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("moves"), redis__shards="2") as found:
        half = len(DAY) // 2
        for place, fixes in enumerate((DAY[:half], DAY[half:])):
            for device in ("a", "b"):
                found.append(*(sent(device, fix) for fix in fixes))
            if place == 0:
                found.save()
        found.append(*(sent("c", fix) for fix in stays(0, 900, 5)))
        found.append(Sent("d", record(MIDNIGHT_US, fix=False)))
        yield found


def sent(device: str, fix: Fix) -> Sent:
    at_us = MIDNIGHT_US + round(fix.s * 1e6)
    return Sent(device, record(at_us, latitude=fix.north_m * M, longitude=10.0, speed_kmh=fix.kmh))


def pages(box: Box, name: str, limit: int, *query: tuple[str, str | int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: list[tuple[str, str | int]] = []
    while True:
        answer = box.get(f"/v1/{name}", ("limit", limit), *query, *cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page[name]
        if page["next_cursor"] is None:
            return found
        cursor = [("cursor", page["next_cursor"])]


@pytest.mark.parametrize("limit", [1, 50])
def test_trips_over_http(box: Box, limit: int) -> None:
    first, second = pages(box, "trips", limit)
    assert (first["device_id"], second["device_id"]) == ("a", "b")
    assert (first["start"], first["end"]) == ("2026-01-10T00:10:00.000000Z", "2026-01-10T00:30:00.000000Z")
    assert first["distance_km"] == pytest.approx(10, rel=1e-6)
    assert first["speed_kmh_mean"] == pytest.approx(30, rel=1e-6)
    assert (first["start_latitude"], first["end_latitude"]) == pytest.approx((0, 10_000 * M))
    assert {**first, "device_id": "b"} == second


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_stops_over_http(box: Box, limit: int) -> None:
    found = pages(box, "stops", limit)
    assert [(one["device_id"], one["duration_s"]) for one in found] == [
        ("a", 600),
        ("a", 1_200),
        ("b", 600),
        ("b", 1_200),
        ("c", 900),
    ]
    assert [one["device_id"] for one in pages(box, "stops", limit, ("min_stop_s", 1_000))] == ["a", "b"]


def test_one_device_and_a_part_of_its_day(box: Box) -> None:
    [trip] = pages(box, "trips", 5, ("device_id", "b"), ("end", "2026-01-10T00:20:30Z"))
    assert (trip["start"], trip["end"]) == ("2026-01-10T00:10:00.000000Z", "2026-01-10T00:20:30.000000Z")
    assert trip["distance_km"] == pytest.approx(5.25, rel=1e-6)
    assert trip["records"] == 11
    assert trip["end_latitude"] == pytest.approx(5_250 * M, rel=1e-6)


@pytest.mark.parametrize("query", [("device_id", "nobody"), ("end", "2001-01-01"), ("start", "2100-01-01")])
def test_an_empty_result_is_no_error(box: Box, query: tuple[str, str]) -> None:
    assert pages(box, "trips", 5, query) == pages(box, "stops", 5, query) == []


@pytest.mark.parametrize(
    "query", [("stopped_kmh", "x"), ("min_stop_s", "-1"), ("max_gap_s", "1e9"), ("cursor", "x"), ("every", "1h")]
)
def test_invalid_parameters_are_rejected(box: Box, query: tuple[str, str]) -> None:
    assert_problem(box.get("/v1/trips", query), 400, "invalid-parameter")
