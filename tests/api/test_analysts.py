"""The questions of docs/analysts.md, as SQL over HTTP runs them, on real buses: each answer is worked out again."""

from __future__ import annotations

import csv
import itertools
import re
from collections import defaultdict
from datetime import UTC, datetime
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pytest

from api.sql.sandbox_process import Question, answer
from telemetry.archive.schema import COLUMNS

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "analysts.md").read_text(encoding="utf-8")
QUESTIONS = dict(re.findall(r"^## ([^\n]+)\n.*?```sql\n(.+?)```", PAGE, re.M | re.S))
SQUARE = (53.4078, -2.9806)


class Fix(NamedTuple):
    at_s: int
    latitude: float
    longitude: float

    def km(self, latitude: float, longitude: float) -> float:
        a = sin(radians(latitude - self.latitude) / 2) ** 2
        b = cos(radians(latitude)) * cos(radians(self.latitude)) * sin(radians(longitude - self.longitude) / 2) ** 2
        return 2 * 6371.0088 * asin(sqrt(a + b))


def read() -> list[tuple[str, Fix]]:
    with (PROJECT / "tests" / "data" / "liverpool_bus_route14.csv").open(encoding="utf-8") as file:
        return [(row["vehicle_id"], fix(row)) for row in csv.DictReader(file)]


def fix(row: dict[str, str]) -> Fix:
    at = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC)
    return Fix(int(at.timestamp()), float(row["latitude"]), float(row["longitude"]))


BUSES = read()
TRACKS: defaultdict[str, list[Fix]] = defaultdict(list)
for _device, _fix in BUSES:
    TRACKS[_device].append(_fix)
for _track in TRACKS.values():
    _track.sort()


def records() -> pa.Table:
    """The buses, each received 2 s later; the eleventh comes an hour late, and the first came twice."""
    rows = []
    for place, (device, one) in enumerate([*BUSES, BUSES[0]]):
        row = dict.fromkeys(COLUMNS.names) | {"device_id": device, "id": place + 1, "transport": "http"}
        late_s = 3_600 if place == 10 else 2
        row |= {"source": "json", "latitude": one.latitude, "longitude": one.longitude}
        row |= {"timestamp": one.at_s * 1_000_000, "received_at": (one.at_s + late_s) * 1_000_000}
        rows.append(row)
    return pa.Table.from_pylist(rows, COLUMNS)


def ask(name: str) -> list[list[object]]:
    outcome, data = answer(Question(QUESTIONS[name], "json", [], [], "", 30, 2**28, 100_000, 2**25), records())
    assert not outcome.wrong, outcome.detail
    found: list[list[object]] = msgspec.json.decode(data)["rows"]
    return found


def iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def test_there_are_ten_and_each_is_tested() -> None:
    assert len(QUESTIONS) == 10
    assert all(f'ask("{name}")' in Path(__file__).read_text(encoding="utf-8") for name in QUESTIONS)


def test_distance() -> None:
    found = ask("How far did each vehicle drive a day?")
    assert [row[:2] for row in found] == [[device, "2026-01-26"] for device in sorted(TRACKS)]
    for device, _, km in found:
        track = TRACKS[str(device)]
        expected = sum(was.km(*one[1:]) for was, one in itertools.pairwise(track))
        assert km == pytest.approx(expected, abs=0.001)


def test_dwell() -> None:
    expected: defaultdict[str, int] = defaultdict(int)
    for device, track in TRACKS.items():
        for one, after in itertools.pairwise(track):
            is_there = abs(one.latitude - SQUARE[0]) < 0.005 and abs(one.longitude - SQUARE[1]) < 0.005
            if is_there and after.at_s - one.at_s <= 600:
                expected[device] += after.at_s - one.at_s
    assert len(expected) > 3
    assert ask("How long was each at a place?") == [[device, expected[device]] for device in sorted(expected)]


def test_gaps() -> None:
    steps = [
        (was.at_s - one.at_s, device, was.at_s, one.at_s)
        for device, track in TRACKS.items()
        for was, one in itertools.pairwise(track)
    ]
    expected = [[device, iso(was), iso(back), -gap] for gap, device, was, back in sorted(steps) if gap < -600]
    assert expected[0][0] == "4722"
    assert ask("Where are gaps?") == expected


def test_speeding() -> None:
    expected: list[tuple[float, str, str]] = []
    for device, track in TRACKS.items():
        for was, one in itertools.pairwise(track):
            took_s = one.at_s - was.at_s
            if 10 <= took_s <= 60 and (kmh := 3_600 / took_s * was.km(*one[1:])) > 48:
                expected.append((kmh, device, iso(one.at_s)))
    assert len(expected) >= 4
    assert ask("Who drove too fast?") == [
        [device, at, round(kmh, 1)] for kmh, device, at in sorted(expected, reverse=True)
    ]


def test_grid() -> None:
    found = ask("Where is the most going on?")
    assert len(found) == 5
    counts: defaultdict[tuple[int, int], int] = defaultdict(int)
    for _, one in [*BUSES, BUSES[0]]:
        counts[int(one.latitude * 100 // 1), int(one.longitude * 100 // 1)] += 1
    assert [row[2] for row in found] == sorted(counts.values(), reverse=True)[:5]
    assert all(counts[row[0], row[1]] == row[2] for row in found)  # type: ignore[index]


def test_last_position() -> None:
    five_s = int(datetime(2026, 1, 26, 17, tzinfo=UTC).timestamp())
    last = {device: max(one for one in track if one.at_s <= five_s) for device, track in TRACKS.items()}
    assert ask("Where was each at five o'clock?") == [
        [device, iso(last[device].at_s), last[device].latitude, last[device].longitude] for device in sorted(last)
    ]


def test_utilisation() -> None:
    heard: defaultdict[int, set[str]] = defaultdict(set)
    for device, one in BUSES:
        heard[one.at_s // 3_600].add(device)
    assert ask("How much of the fleet was used?") == [
        [iso(hour * 3_600), len(heard[hour]), len(heard[hour]) * 12.5] for hour in sorted(heard)
    ]


def test_late() -> None:
    device, one = BUSES[10]
    assert ask("Which records came late?") == [[device, iso(one.at_s), iso(one.at_s + 3_600), 3_600]]


def test_twice() -> None:
    device, one = BUSES[0]
    assert ask("What was sent twice?") == [[device, iso(one.at_s), 2, 1]]


def test_nearest() -> None:
    last = {device: track[-1] for device, track in TRACKS.items()}
    expected = sorted((one.km(*SQUARE), device, iso(one.at_s)) for device, one in last.items())[:3]
    found = ask("Which vehicle is nearest?")
    assert [(row[0], row[1]) for row in found] == [(device, at) for _, device, at in expected]
    assert [row[2] for row in found] == pytest.approx([km for km, _, _ in expected], abs=0.001)
