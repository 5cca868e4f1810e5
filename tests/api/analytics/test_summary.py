"""Summaries over HTTP: whole and in pages, before and after a save, and rejected parameters."""

from __future__ import annotations

from typing import Any

import pytest

from api.analytics.summary_sql import FIELDS
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from tests.api.conftest import Box, assert_problem, record
from tests.api.stores import MIDNIGHT_US
from worker.saving.save_budget import Bounds

HOUR_US = DAY_US // 24
Query = list[tuple[str, str | int]]

VAN = [
    Record(MIDNIGHT_US - 60_000_000, "tcp", "json", 53.4, -3.0, None, 36.0),
    Record(MIDNIGHT_US, "tcp", "json", 53.41, -3.0, None, 0.0),
    Record(MIDNIGHT_US + 60_000_000, "tcp", "json", None, None, None, 2.5),
    Record(MIDNIGHT_US + 61_500_000, "tcp", "json", 53.41, -2.99, None, None),
]
DAY: Query = [("start", "2026-01-10"), ("end", "2026-01-10")]
BOTH_DAYS: Query = [("start", "2026-01-09"), ("end", "2026-01-10")]
ODD = ["o'brien\\\"\n", "ü/😀%", "7-8"]


@pytest.fixture(scope="module", autouse=True)
def fleet(box: Box) -> None:
    """Records of some devices; one device has saved and unsaved records, of which the oldest arrives last."""
    for number, one in enumerate(reversed(VAN)):
        box.append(Sent("van", one))
        if number == 1:
            box.save()
    box.append(*(Sent(name, record(MIDNIGHT_US + n * HOUR_US)) for name in ODD for n in range(5)))


def ask(box: Box, query: Query) -> list[dict[str, Any]]:
    """The summaries of a request whose page holds all."""
    answer = box.get("/v1/summary", *query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found) == ["summaries", "next_cursor"]
    assert found["next_cursor"] is None
    return found["summaries"]  # type: ignore[no-any-return]


def test_a_day(box: Box) -> None:
    assert ask(box, [*DAY, ("device_id", "van")]) == [
        {
            "device_id": "van",
            "start": "2026-01-10T00:00:00.000000Z",
            "end": "2026-01-11T00:00:00.000000Z",
            "count": 3,
            "first": "2026-01-10T00:00:00.000000Z",
            "last": "2026-01-10T00:01:01.500000Z",
            "distance_km": 0.662817,
            "speed_kmh_mean": 1.25,
            "speed_kmh_max": 2.5,
            "stopped_seconds": 60.0,
            "bbox": [-3.0, 53.41, -2.99, 53.41],
            "implausible": 0,
        }
    ]


def test_a_hop_over_midnight_is_divided_there(box: Box) -> None:
    """It ends at the record of midnight, so all of it belongs to the earlier day."""
    days = ask(box, [*BOTH_DAYS, ("device_id", "van"), ("every", "1d")])
    assert [(one["start"], one["end"], one["count"]) for one in days] == [
        ("2026-01-09T00:00:00.000000Z", "2026-01-10T00:00:00.000000Z", 1),
        ("2026-01-10T00:00:00.000000Z", "2026-01-11T00:00:00.000000Z", 3),
    ]
    [whole] = ask(box, [*BOTH_DAYS, ("device_id", "van")])
    assert [one["distance_km"] for one in days] == pytest.approx([1.111951, 0.662817], abs=2e-6)
    assert whole["distance_km"] == pytest.approx(sum(one["distance_km"] for one in days), abs=2e-6)
    assert [one["stopped_seconds"] for one in days] == [0.0, 60.0]
    asked = [ask(box, [("start", day), ("end", day), ("device_id", "van")]) for day in ("2026-01-09", "2026-01-10")]
    assert [one for found in asked for one in found] == days


def test_a_stop_between_two_records_is_divided_among_buckets(box: Box) -> None:
    box.append(*(Sent("gate", record(MIDNIGHT_US + s * 1_000_000, speed_kmh=0.0)) for s in (90, 270)))
    fields = [("fields", "count,first,distance_km,stopped_seconds"), ("every", "1m"), ("device_id", "gate")]
    found = ask(box, [*DAY, *fields])
    assert [(one["start"][14:16], one["count"], one["stopped_seconds"]) for one in found] == [
        ("01", 1, 30.0),
        ("02", 0, 60.0),
        ("03", 0, 60.0),
        ("04", 1, 30.0),
    ]
    assert [one["first"] for one in found][1:3] == [None, None]
    within = [("start", "2026-01-10T00:02:10Z"), ("end", "2026-01-10T00:02:50Z"), ("device_id", "gate")]
    [between] = ask(box, [*within, ("fields", "count,stopped_seconds")])
    assert (between["count"], between["stopped_seconds"]) == (0, 40.0)
    assert ask(box, [*within, ("fields", "count")]) == []
    [later] = ask(box, [("start", within[0][1]), ("device_id", "gate"), ("fields", "count,stopped_seconds")])
    assert (later["count"], later["stopped_seconds"]) == (1, 140.0)


def test_a_stop_of_days_between_two_records_is_divided(box: Box) -> None:
    box.append(*(Sent("barn", record(MIDNIGHT_US + day * DAY_US + 1, speed_kmh=0.0)) for day in (-10, 10)))
    found = ask(box, [*BOTH_DAYS, ("device_id", "barn"), ("every", "1d"), ("max_gap_s", 30 * 86_400)])
    assert [(one["count"], one["stopped_seconds"]) for one in found] == [(0, 86_400.0), (0, 86_400.0)]


def test_the_first_and_last_bucket_are_clipped_to_the_range(box: Box) -> None:
    found = ask(
        box,
        [
            *[("device_id", "van"), ("every", "5m"), ("fields", "count")],
            *[("start", "2026-01-10T02:59:30+03:00"), ("end", "2026-01-10T00:01:01Z")],
        ],
    )
    assert found == [
        {"device_id": "van", "start": "2026-01-10T00:00:00.000000Z", "end": "2026-01-10T00:01:01.000000Z", "count": 2},
    ]


def test_without_a_range_it_is_all_time(box: Box) -> None:
    [found] = ask(box, [("device_id", "van"), ("fields", "count,first")])
    assert (found["start"], found["end"]) == ("2000-01-01T00:00:00.000000Z", "2200-01-01T00:00:00.000000Z")
    assert (found["count"], found["first"]) == (4, "2026-01-09T23:59:00.000000Z")


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_requested_alone_has_the_same_value(box: Box, name: str) -> None:
    every = [*BOTH_DAYS, ("every", "1h")]
    some = [{key: one[key] for key in ("device_id", "start", "end", name)} for one in ask(box, every)]
    assert ask(box, [*every, ("fields", name)]) == some


def test_fields_come_in_their_order_once_each(box: Box) -> None:
    [found] = ask(box, [*DAY, ("device_id", "van"), ("fields", "last,count,last")])
    assert list(found) == ["device_id", "start", "end", "count", "last"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (("stopped_kmh", "2.5"), 60.0),
        (("stopped_kmh", "2.49"), 0.0),
        (("stopped_kmh", "36"), 120.0),
        (("max_gap_s", "60"), 60.0),
        (("max_gap_s", "59.999999"), 0.0),
    ],
)
def test_rules_of_stops_are_parameters(box: Box, rule: tuple[str, str], expected: float) -> None:
    [found] = ask(box, [*BOTH_DAYS, ("device_id", "van"), rule])
    assert found["stopped_seconds"] == expected


def test_a_record_without_a_speed_ends_no_stop(box: Box) -> None:
    speeds = [0.0, None, 0.0]
    parked = [Record(MIDNIGHT_US + n * 100_000_000, "tcp", "json", speed_kmh=one) for n, one in enumerate(speeds)]
    box.append(*(Sent("parked", one) for one in parked))
    [found] = ask(box, [("device_id", "parked")])
    assert found["stopped_seconds"] == 200.0
    assert (found["distance_km"], found["bbox"]) == (None, None)


def test_a_mean_that_overflows_is_null(box: Box) -> None:
    box.append(*(Sent("rocket", record(MIDNIGHT_US + n, speed_kmh=1.7e308)) for n in range(2)))
    [found] = ask(box, [("device_id", "rocket")])
    assert (found["speed_kmh_mean"], found["speed_kmh_max"]) == (None, 1.7e308)


def test_a_box_over_the_180th_meridian_has_its_west_in_the_east(box: Box) -> None:
    places = [(-17.0, 179.5), (-16.0, -179.5)]
    box.append(
        *(Sent("boat", Record(MIDNIGHT_US + n * HOUR_US, "tcp", "json", *place)) for n, place in enumerate(places))
    )
    [found] = ask(box, [("device_id", "boat")])
    assert found["bbox"] == [179.5, -17.0, -179.5, -16.0]
    assert found["distance_km"] == pytest.approx(154.05, abs=0.05)


@pytest.mark.parametrize("limit", [1, 3, 15, 16])
def test_pages_to_the_end_are_one_large_page(box: Box, limit: int) -> None:
    query: Query = [*DAY, ("every", "1h"), *(("device_id", name) for name in ODD)]
    whole = ask(box, query)
    assert [one["device_id"] for one in whole] == [name for name in sorted(ODD, key=str.encode) for _ in range(5)]
    found, cursor = [], ""
    for _ in range(-(-15 // limit)):
        part = box.get("/v1/summary", *query, ("limit", limit), ("cursor", cursor)).json()
        assert 1 <= len(part["summaries"]) <= limit
        found += part["summaries"]
        cursor = part["next_cursor"]
    assert cursor is None, "no empty page at the end"
    assert found == whole


def test_a_save_changes_nothing(box: Box) -> None:
    queries = [[("device_id", name) for name in ("van", *ODD)] + [("every", every)] for every in ("1m", "31d")]
    before = [box.get("/v1/summary", *query).content for query in queries]
    while box.shards[0].unsaved():
        box.save(bounds=Bounds(max_devices=1))
        assert [box.get("/v1/summary", *query).content for query in queries] == before


@pytest.mark.parametrize(
    "query",
    [
        [("device_id", "nobody")],
        [("device_id", "a\0' OR 1=1 --")],
        [("start", "2026-01-05"), ("end", "2026-01-05")],
        [("start", "2026-01-11"), ("end", "2026-01-09")],
        [("start", "2026-01-10T00:00:00Z"), ("end", "2026-01-10T00:00:00Z"), ("every", "1h")],
        [("cursor", "0-\U0010ffff")],
    ],
)
def test_where_there_is_nothing_there_are_no_summaries(box: Box, query: Query) -> None:
    assert ask(box, query) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("every", text) for text in ("", "1", "h", "0h", "59s", "0m", "32d", "745h", "1.5h", "1H", "-1h", "٣h")),
        *(("fields", text) for text in ("", "count,", "speed", "count last", "device_id", "COUNT")),
        *(("stopped_kmh", text) for text in ("", "-1", "1000.1", "x", "nan", "1e2", "1.", "٣")),
        *(("max_gap_s", text) for text in ("", "0", "0.5", "2678401", "inf")),
        *(("limit", text) for text in ("0", "50001", "x")),
        *(("cursor", text) for text in ("x", "1", "1-", "-van", "9" * 17 + "-van", "1-" + 256 * "x")),
        *(("start", "yesterday"), ("end", "2026-13-01"), ("order", "asc"), ("evry", "1h")),
    ],
)
def test_invalid_parameters_are_rejected_by_name(box: Box, name: str, value: str) -> None:
    found = assert_problem(box.get("/v1/summary", (name, value)), 400, "invalid-parameter")
    assert found["parameter"] == name
    assert str(found["detail"]).startswith(f"{name} ")


@pytest.mark.parametrize(
    "parameter", [("every", "1m"), ("every", "31d"), ("every", "744h"), ("max_gap_s", "2678400"), ("max_gap_s", "1")]
)
def test_the_minimum_and_maximum_are_accepted(box: Box, parameter: tuple[str, str]) -> None:
    assert sum(one["count"] for one in ask(box, [("device_id", "van"), parameter])) == len(VAN)


def test_only_get_is_allowed(box: Box) -> None:
    answer = box.http.post("/v1/summary", json={})
    assert_problem(answer, 405, "wrong-method")
    assert "GET" in answer.headers["allow"]
    headed = box.http.head("/v1/summary", headers={"Accept-Encoding": "identity"})
    assert headed.status_code == 200
    assert int(headed.headers["content-length"]) > 100
