"""`whimbrel simulate`: the same bytes for a seed, vehicles that a street could carry, and the way to a collector."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from math import asin, atan2, cos, degrees, radians, sin, sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cli.sending.simulate import COMMAND, in_time
from cli.sending.vehicle_simulation import MOST_HELD, PARKED_REPORT_S, Plan, Slot, traffic
from telemetry.codec.record_parser import Arrival, read
from telemetry.config.settings import Collector, Settings
from telemetry.model.errors import BusyError, ConfigError
from tests.box import free_ports
from tests.cli.conftest import Run
from tests.cli.fake_box import FakeBox, http_server, tcp_server

START_US = 1_767_225_600_000_000
DAY_US = 86_400_000_000
FASTEST_KMH = 200.0
EARTH_M = 6_371_000.0

Record = dict[str, Any]


def lines(plan: Plan, count: int | None = None, seed: int = 1) -> list[str]:
    slots = traffic(plan, random.Random(seed).random)
    return list(itertools.islice((line for slot in slots for line in slot.lines), count))


def by_device(found: list[str]) -> dict[str, list[Record]]:
    tracks: dict[str, list[Record]] = defaultdict(list)
    for record in map(json.loads, found):
        tracks[record["device_id"]].append(record)
    return tracks


def seconds(record: Record) -> float:
    return datetime.fromisoformat(record["timestamp"]).timestamp()


def metres(a: Record, b: Record) -> float:
    lat, lon = radians(b["latitude"] - a["latitude"]), radians(b["longitude"] - a["longitude"])
    chord = sin(lat / 2) ** 2 + cos(radians(a["latitude"])) * cos(radians(b["latitude"])) * sin(lon / 2) ** 2
    return 2 * EARTH_M * asin(sqrt(chord))


def bearing(a: Record, b: Record) -> float:
    north = b["latitude"] - a["latitude"]
    east = (b["longitude"] - a["longitude"]) * cos(radians(a["latitude"]))
    return degrees(atan2(east, north)) % 360


def between(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


# What is made up -------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    devices=st.sampled_from([1, 7, 120]),
    interval_ms=st.sampled_from([250, 1_000, 10_000, 60_000]),
    mess=st.booleans(),
)
@hypothesis_settings(max_examples=20, deadline=None)
def test_vehicles_move_as_vehicles_do(seed: int, devices: int, interval_ms: int, mess: bool) -> None:
    tracks = by_device(lines(Plan(devices, START_US, interval_ms, mess=mess), 4_000, seed))
    assert len(tracks) <= devices
    for track in tracks.values():
        assert all(-90 <= one["latitude"] <= 90 and -180 <= one["longitude"] <= 180 for one in track)
        assert all(0 <= one["speed_kmh"] <= FASTEST_KMH and 0 < one["fuel"] < 100 for one in track)
        assert all(one["speed_kmh"] == 0 for one in track if not one["ignition"])
        for a, b in itertools.pairwise(track):
            passed_s = seconds(b) - seconds(a)
            assert passed_s > 0
            assert metres(a, b) <= passed_s * FASTEST_KMH / 3.6 + 0.3
            on_one_street = interval_ms <= 10_000 and a["heading_deg"] == b["heading_deg"]
            if on_one_street and metres(a, b) > 15:
                assert between(bearing(a, b), b["heading_deg"]) < 2


def test_the_same_seed_makes_the_same_and_another_another() -> None:
    plan = Plan(50, START_US, 5_000, mess=True)
    assert lines(plan, 5_000) == lines(plan, 5_000)
    assert lines(plan, 5_000)[:700] == lines(plan, 700)
    assert lines(plan, 5_000) != lines(plan, 5_000, seed=2)


def test_every_device_reports_once_in_the_first_interval() -> None:
    found = [json.loads(line)["device_id"] for line in lines(Plan(1_234, START_US, 10_000), 1_234)]
    assert len(set(found)) == 1_234


def test_parked_vehicles_report_rarely_and_drive_on() -> None:
    tracks = by_device(lines(Plan(20, START_US, 10_000, end_us=START_US + DAY_US)))
    for track in tracks.values():
        assert {one["ignition"] for one in track} == {True, False}
        parked = [seconds(b) - seconds(a) for a, b in itertools.pairwise(track) if not (a["ignition"] or b["ignition"])]
        assert min(parked) >= PARKED_REPORT_S - 20
    assert {key for track in tracks.values() for one in track for key in one} >= {"altitude_m", "battery_v", "fuel"}
    assert sum(map(len, tracks.values())) < 20 * 8_640


def test_time_ends_and_what_was_held_back_comes_out() -> None:
    plan = Plan(500, START_US, 10_000, end_us=START_US + 600_000_000, mess=True)
    slots = list(traffic(plan, random.Random(1).random))
    assert slots[-1].lines, "of 50 late devices some are out of reach at the end"
    clocks = [seconds(json.loads(line)) - slot.at_us / 1e6 for slot in slots[:-1] for line in slot.lines]
    assert max(clocks) > 60, "some clocks run ahead"
    assert min(clocks) < -10, "some records are late"


def test_late_records_come_in_bursts_of_one_device() -> None:
    found = lines(Plan(500, START_US, 10_000, mess=True), 50_000)
    names = [line[14:24] for line in found]
    bursts = [len(list(group)) for _, group in itertools.groupby(names)]
    assert 10 < max(bursts) <= MOST_HELD


def test_collectors_take_every_record() -> None:
    arrival = Arrival(START_US, START_US + DAY_US, "kmh", 2**20)
    for line in lines(Plan(300, START_US, 10_000, mess=True), 3_000):
        sent = read(json.loads(line), "http", "json", arrival)
        assert sent.record.has_fix
        assert set(json.loads(sent.record.attributes or "")) == {"ignition", "battery_v", "fuel"}


# The command -----------------------------------------------------------------------------------------


def test_rate_and_batch_change_no_byte(call: Run, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("plain", "small", "paced")]
    options: list[tuple[object, ...]] = [(), ("--batch", 7), ("--rate", 20_000)]
    for file, more in zip(files, options, strict=True):
        done = call(COMMAND, Settings(), "--devices", 40, "--records", 3_000, "--mess", "--out", file, "--json", *more)
        assert done.status == 0
        assert done.json["records"] == 3_000
        assert done.json["bytes"] == file.stat().st_size
    first, *others = [file.read_bytes() for file in files]
    assert first.count(b"\n") == 3_000
    assert all(other == first for other in others)


def test_days_from_a_date_at_an_interval(call: Run, tmp_path: Path) -> None:
    file = tmp_path / "history.ndjson"
    more = ("--start", "2026-03-01", "--interval", 300, "--quiet", "--out", file)
    call(COMMAND, Settings(), "--devices", 5, "--days", 2, *more)
    moments = [json.loads(line)["timestamp"] for line in file.read_text().splitlines()]
    assert moments[0] == "2026-03-01T00:00:00.000Z"
    assert "2026-03-02T23" < max(moments) < "2026-03-03"


@pytest.fixture(params=["http", "tcp"])
def sent_to(request: pytest.FixtureRequest) -> Iterator[tuple[FakeBox, list[object]]]:
    """A box, and the arguments that lead there."""
    box = FakeBox("busy")
    if request.param == "http":
        with http_server(box.http) as url:
            yield box, ["--url", url]
    else:
        with tcp_server(box) as address:
            yield box, ["--over", "tcp", "--tcp", address]


def test_it_sends_as_send_does(call: Run, sent_to: tuple[FakeBox, list[object]]) -> None:
    box, way = sent_to
    done = call(COMMAND, Settings(), "--devices", 30, "--records", 1_234, "--json", *way)
    assert done.status == 0
    assert done.json["accepted"] == 1_234
    assert box.stored == [json.loads(line) for line in lines(Plan(30, START_US, 10_000), 1_234)]


def test_it_stops_after_a_while(call: Run, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = call(COMMAND, Settings(), "--devices", 10, "--duration", 1, "--rate", 100, "--out", "-")
    assert 0.9 < time.monotonic() - begun < 10
    assert 1 <= len(done.lines) <= 150
    assert "records/s" in done.err


def test_live_starts_now_and_keeps_time() -> None:
    now = [0.0]
    slept: list[float] = []

    def sleep(wait_s: float) -> None:
        slept.append(wait_s)
        now[0] += wait_s

    slots = [Slot(START_US + n * 250_000, []) for n in range(4)]
    assert list(in_time(slots, lambda: now[0], sleep)) == slots
    assert slept == pytest.approx([0.25] * 3)


def test_live_records_are_of_this_moment(call: Run) -> None:
    done = call(COMMAND, Settings(), "--devices", 5, "--records", 5, "--interval", 0.5, "--live", "--out", "-")
    assert all(abs(seconds(json.loads(line)) - time.time()) < 5 for line in done.lines)


@pytest.mark.parametrize("arguments", [("--live", "--rate", "5"), ("--out", "file.ndjson")])
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], call: Run) -> None:
    with pytest.raises(ConfigError, match=r"cannot .*: "):
        call(COMMAND, Settings(), *arguments)


def test_a_collector_that_is_away_fails_it(call: Run) -> None:
    [port] = free_ports(1)
    settings = Settings(collector=Collector(http_port=port))
    with pytest.raises(BusyError, match=r"gave up after 0\.2 s"):
        call(COMMAND, settings, "--records", 1, "--retry-seconds", 0.2)
