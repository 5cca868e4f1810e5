"""`/v1/latest` in other formats, for an area, and for a time in the past."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from telemetry.model.record import Sent, Stored
from telemetry.model.utc import DAY_US
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.api.records.test_export import READERS
from tests.api.records.test_range_query import MIDNIGHT_US, shown
from tests.conftest import RedisServer

Row = dict[str, Any]
Parameter = tuple[str, str | int]
DEVICES = ["a", "b", "c", "d", "e"]
NO_FIX = '{"fix":false}'


def some(seed: int) -> list[list[Sent]]:
    """Groups of records of three days: late, without a fix or coordinates, with equal times, some imported."""
    chance = random.Random(seed)
    groups = []
    for _ in range(12):
        group = []
        for device in chance.sample(DEVICES, 3):
            at_us = MIDNIGHT_US + chance.choice([0, 1, DAY_US - 1, DAY_US, DAY_US + 5, 2 * DAY_US + 7])
            latitude = chance.choice([None, 10.0, 20.0])
            attributes = chance.choice([None, NO_FIX])
            longitude = None if latitude is None else 30.0
            made = record(at_us, latitude=latitude, longitude=longitude, attributes=attributes)
            group.append(Sent(device, msgspec.structs.replace(made, transport="import") if device == "e" else made))
        groups.append(group)
    return groups


class Filled:
    """A box with records, some of them saved, and the records as they are stored."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.stored: list[Stored] = []
        for place, group in enumerate(some(7)):
            self.stored += box.append(*group)
            if place == 7:
                box.save()

    def latest(self, at_us: int, since_us: int) -> list[Row]:
        """The expected state of each device at a time, computed one by one."""
        found = []
        for device in DEVICES:
            of_device = [
                one for one in self.stored if one.device_id == device and since_us <= one.record.timestamp_us <= at_us
            ]
            of_device.sort(key=lambda one: (one.record.timestamp_us, one.id))
            places = [one for one in of_device if one.record.latitude is not None and one.record.attributes is None]
            if of_device:
                newest = shown(of_device[-1])
                position = shown(places[-1]) if places else None
                is_imported = of_device[-1].record.transport == "import"
                seen = min(newest["timestamp"], newest["received_at"]) if is_imported else newest["received_at"]
                found.append({**newest, "last_seen": seen, "position": position})
        return found


@pytest.fixture(scope="module")
def filled(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("fleet"), redis__shards="2") as box:
        yield Filled(box)


def asked(filled: Filled, *query: Parameter) -> list[Row]:
    """All pages of one or two devices."""
    found: list[Row] = []
    cursor: list[Parameter] = []
    while True:
        answer = filled.box.get("/v1/latest", *query, *cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["records"]
        if page["next_cursor"] is None:
            return found
        cursor = [("cursor", page["next_cursor"])]


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("at_us", [MIDNIGHT_US - 1, MIDNIGHT_US, MIDNIGHT_US + 1, MIDNIGHT_US + DAY_US + 6])
def test_the_fleet_at_a_time(filled: Filled, at_us: int, limit: int) -> None:
    found = asked(filled, ("at", f"{at_us / 1_000_000:.6f}"), ("limit", limit))
    assert found == filled.latest(at_us, 0)


def test_within_days_limits_the_age(filled: Filled) -> None:
    at_us = MIDNIGHT_US + 3 * DAY_US
    found = asked(filled, ("at", "2026-01-13"), ("within_days", 1))
    assert found == filled.latest(at_us, at_us - DAY_US)
    assert len(found) < len(asked(filled, ("at", "2026-01-13")))


def test_named_devices(filled: Filled) -> None:
    found = asked(filled, ("at", "2026-01-13"), ("device_id", "b"), ("device_id", "nobody"))
    assert [row["device_id"] for row in found] == ["b"]


@pytest.mark.parametrize("kind", sorted(READERS.keys() - {"json", "geojson"}))
def test_the_newest_records_in_every_format(filled: Filled, kind: str) -> None:
    rows: list[Row] = []
    query: list[Parameter] = [("format", kind), ("limit", 2)]
    while True:
        answer = filled.box.get("/v1/latest", *query)
        rows += READERS[kind](answer.content)
        if "next" not in answer.links:
            break
        query = [(name, value) for name, value in parse_qsl(urlsplit(answer.links["next"]["url"]).query)]
    plain = filled.box.get("/v1/latest").json()["records"]
    assert rows == [{name: row[name] for name in rows[0]} for row in plain]
    assert len(rows) == len(DEVICES)


def test_map_formats_contain_positions(filled: Filled) -> None:
    found = READERS["geojson"](filled.box.get("/v1/latest", ("format", "geojson")).content)
    plain = filled.box.get("/v1/latest").json()["records"]
    assert found == [row["position"] for row in plain if row["position"]]


def test_accept_may_name_json_and_other_formats(filled: Filled) -> None:
    answer = filled.box.http.get("/v1/latest", headers={"Accept": "application/x-ndjson;q=0.5, application/json"})
    assert answer.json() == filled.box.get("/v1/latest").json()
    csv = filled.box.http.get("/v1/latest", headers={"Accept": "text/csv"})
    assert csv.text.startswith("device_id,timestamp")


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_an_area(filled: Filled, limit: int) -> None:
    plain = filled.box.get("/v1/latest").json()["records"]
    expected = [row for row in plain if row["position"] and row["position"]["latitude"] == 10.0]
    assert 0 < len(expected) < len(plain)
    assert asked(filled, ("bbox", "29,9,31,11"), ("limit", limit)) == expected
    assert asked(filled, ("near", "10,30,5"), ("limit", limit)) == expected
    rows = READERS["csv"](filled.box.get("/v1/latest", ("bbox", "29,9,31,11"), ("format", "csv")).content)
    assert [row["device_id"] for row in rows] == [row["device_id"] for row in expected]


@pytest.mark.parametrize(
    "query",
    [("within_days", "0"), ("within_days", "x"), ("bbox", "1"), ("format", "xls"), ("start", "2026-01-01")],
)
def test_invalid_parameters_are_rejected(filled: Filled, query: Parameter) -> None:
    assert_problem(filled.box.get("/v1/latest", ("at", "2026-01-01"), query), 400, "invalid-parameter")


def test_within_days_requires_at(filled: Filled) -> None:
    assert_problem(filled.box.get("/v1/latest", ("within_days", "5")), 400, "invalid-parameter")


@pytest.mark.parametrize("text", ["x", "", "2026-13-01"])
def test_an_invalid_time_is_rejected(filled: Filled, text: str) -> None:
    assert_problem(filled.box.get("/v1/latest", ("at", text)), 400, "invalid-parameter")
