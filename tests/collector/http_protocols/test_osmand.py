"""OsmAnd's three dialects, their units, and what a phone must not hear."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.http_protocols.osmand import read
from collector.http_protocols.protocol import NotOurs, Post
from tests.collector.http_protocols.posting import HTTP, form, only, posted, query, told
from tests.collector.protocols.three_ways import NOW_US

GOOD = "id=dev1&lat=41.0082&lon=28.9784&timestamp=1772366400&speed=10&bearing=270&altitude=35"
NOON_US = 1_772_366_400_000_000


@pytest.mark.parametrize("post", [query(GOOD), form(GOOD)], ids=["query", "form"])
def test_a_query_and_a_form(post: object) -> None:
    device, record, attributes = only(told(read, post))  # type: ignore[arg-type]
    assert (device, record.source, record.transport, record.timestamp_us) == ("dev1", "osmand", "http", NOON_US)
    assert (record.latitude, record.longitude, record.altitude_m, record.heading_deg) == (41.0082, 28.9784, 35, 270)
    assert record.speed_kmh == 36
    assert attributes == {}


@pytest.mark.parametrize("post", [query, form], ids=["query", "form"])
def test_names_in_another_case(post: Callable[[str], Post]) -> None:
    text = "ID=dev1&Lat=41.5&LON=28.5&Timestamp=1772366400&Speed=10&Fuel=5&Token=secret"
    device, record, attributes = only(told(read, post(text)))
    assert (device, record.timestamp_us, record.latitude, record.longitude) == ("dev1", NOON_US, 41.5, 28.5)
    assert (record.speed_kmh, attributes) == (36, {"Fuel": 5})


def test_of_names_in_both_cases_the_usual_one_counts() -> None:
    _, record, attributes = only(told(read, query("id=1&LAT=5&lat=41.5&lon=28.5&token=a&TOKEN=b")))
    assert (record.latitude, attributes) == (41.5, {"LAT": 5})


OSMAND = "id=1&lat=53.1&lon=-2.1&timestamp=1772366400123&hdop=4.0&altitude=35.0&speed=9.5&bearing=270.0"
TRACCAR_CLIENT = "id=1&timestamp=1772366400&lat=53.1&lon=-2.1&speed=9.5&bearing=270.0&altitude=35.0"


@pytest.mark.parametrize("dialect", [query, form], ids=["query", "form"])
@pytest.mark.parametrize(
    ("text", "kmh"),
    [
        ("id=1&lat=53.1&lon=-2.1&speed=9.5", 34.2),
        (OSMAND, 34.2),
        (f"{OSMAND}&batt=80", 34.2),
        (f"{OSMAND}&accuracy=5", 34.2),
        (f"{TRACCAR_CLIENT}&accuracy=5.0&batt=80.0", 17.594),
        (f"{TRACCAR_CLIENT}&batt=80.0", 17.594),
    ],
    ids=["least", "OsmAnd", "GPSLogger", "with accuracy", "Traccar Client", "Traccar Client, older"],
)
def test_the_app_says_what_speeds_are_in(dialect: Callable[[str], Post], text: str, kmh: float) -> None:
    _, record, _ = only(told(read, dialect(text)))
    assert record.speed_kmh == pytest.approx(kmh)


@pytest.mark.parametrize(("unit", "kmh"), [("kmh", 10), ("ms", 36), ("mph", 16.09344), ("knots", 18.52)])
@pytest.mark.parametrize("app", ["", "&batt=80"], ids=["another app", "Traccar Client"])
def test_the_listener_overrides_the_app(unit: str, kmh: float, app: str) -> None:
    _, record, _ = only(told(read, query(f"id=1&lat=1&lon=2&speed=10{app}"), HTTP._replace(speed_unit=unit)))
    assert record.speed_kmh == pytest.approx(kmh)


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("1772366400", NOON_US),
        ("1772366400123", NOON_US + 123_000),
        ("2026-03-01T12:00:00Z", NOON_US),
        ("2026-03-01T15:00:00%2B03:00", NOON_US),
        ("2026-03-01 15:00:00", NOON_US),
        ("", NOW_US),
    ],
)
def test_times(text: str, at_us: int) -> None:
    options = HTTP._replace(timezone=timezone(timedelta(hours=3)))
    _, record, _ = only(told(read, query(f"id=1&lat=1&lon=2&timestamp={text}"), options))
    assert record.timestamp_us == at_us


def test_what_else_a_phone_tells() -> None:
    post = query(
        "deviceid=1&location=1.5,2.5&heading=90&valid=false&batt=80&charge=true&hdop=1.2&driverUniqueId=ann&alarm=sos"
        "&cell=286,1,4660,43981,-70&cell=286,1,1,2&wifi=00-18-01-eb-40-39,-62&notificationToken=secret&token=secret&note=12a&big=12345678901234567890"
    )
    device, record, attributes = only(told(read, post))
    assert (device, record.latitude, record.longitude, record.heading_deg, record.has_fix) == ("1", 1.5, 2.5, 90, False)
    assert attributes == {
        "fix": False,
        "battery_percent": 80,
        "charging": True,
        "hdop": 1.2,
        "driver_id": "ann",
        "alarm": "sos",
        "note": "12a",
        "big": "12345678901234567890",
        "cells": [
            {"mcc": 286, "mnc": 1, "lac": 4660, "cid": 43981, "level": -70},
            {"mcc": 286, "mnc": 1, "lac": 1, "cid": 2},
        ],
        "wifi": [{"mac": "00:18:01:eb:40:39", "level": -62}],
    }


def test_without_coordinates_it_is_no_position() -> None:
    _, record, attributes = only(told(read, query("id=1&timestamp=1377177267&batt=55")))
    assert (record.latitude, record.timestamp_us) == (None, 1_377_177_267_000_000)
    assert attributes == {"battery_percent": 55}


def test_what_is_blank_or_below_0_is_unknown() -> None:
    _, record, attributes = only(told(read, query("id=1&lat=&lon=&speed=-1&bearing=&heading=-1&altitude=&accuracy=-1")))
    assert (record.latitude, record.speed_kmh, record.heading_deg, record.altitude_m) == (None, None, None, None)
    assert (record.accuracy_m, attributes) == (None, {})


def test_names_of_a_traccar_server_are_ours() -> None:
    _, _, attributes = only(told(read, query("id=1&lat=1&lon=2&sat=9&power=12.5&battery=4.1&odometer=1200&rssi=3")))
    assert attributes == {
        "satellites": 9,
        "external_v": 12.5,
        "battery_v": 4.1,
        "odometer_m": 1_200,
        "gsm_signal": 3,
    }


def test_an_alarm_among_the_extras() -> None:
    location = {"coords": {"latitude": 1.5, "longitude": 2.5}, "extras": {"alarm": "sos"}}
    assert only(told(read, posted({"device_id": "1", "location": location})))[2] == {"alarm": "sos"}


LOCATION = {
    "timestamp": "2026-03-01T12:00:00.500Z",
    "coords": {"latitude": 1.5, "longitude": 2.5, "accuracy": 3.8, "speed": 10, "heading": -1, "altitude": 35.7},
    "is_moving": True,
    "odometer": 1200.5,
    "event": "motionchange",
    "activity": {"type": "still"},
    "battery": {"level": 0.79, "is_charging": False},
    "extras": {"seat": 4},
}


def test_json() -> None:
    device, record, attributes = only(told(read, posted({"device_id": 48241179, "location": LOCATION})))
    assert (device, record.timestamp_us) == ("48241179", NOON_US + 500_000)
    assert (record.latitude, record.speed_kmh, record.heading_deg, record.accuracy_m) == (1.5, 36, None, 3.8)
    assert attributes == {
        "seat": 4,
        "event": "motionchange",
        "motion": True,
        "odometer_m": 1200.5,
        "activity": "still",
        "battery_percent": 79,
        "charging": False,
    }


def test_json_that_tells_little_is_enough() -> None:
    location = {"coords": {"latitude": 1.5, "longitude": 2.5}, "battery": {"level": -1}}
    _, record, attributes = only(told(read, posted({"device_id": "1", "location": location})))
    assert (record.latitude, record.speed_kmh, record.timestamp_us, attributes) == (1.5, None, NOW_US, {})
    _, record, _ = only(told(read, posted({"device_id": "1", "location": {"event": "heartbeat"}})))
    assert record.latitude is None


def test_json_may_hold_several() -> None:
    several = [{"device_id": "1", "location": [LOCATION, LOCATION]}, {"device_id": "2", "location": LOCATION}]
    assert [sent.device_id for sent in told(read, posted(several)).records] == ["1", "1", "2"]


@pytest.mark.parametrize(
    "text", ["id=1&lat=abc&lon=30", "id=1&lat=91&lon=30", "id=1&lat=nan&lon=1", "id=1&lat=1&lon=2&timestamp=5"]
)
def test_what_can_never_be_taken_is_set_aside_and_answered_as_taken(text: str) -> None:
    found = told(read, query(f"{text}&notificationToken=secret&token=secret"))
    assert (found.status, found.records) == (200, [])
    (aside,) = found.aside
    assert (aside.device_id, aside.raw) == ("1", text.encode())


def test_a_bad_location_costs_only_itself() -> None:
    bad = {**LOCATION, "coords": {**LOCATION["coords"], "latitude": 100}}  # type: ignore[dict-item]
    found = told(read, posted({"device_id": "1", "location": [LOCATION, bad, LOCATION]}))
    assert (len(found.records), len(found.aside)) == (2, 1)


@pytest.mark.parametrize(
    "post", [query(""), query("lat=1&lon=2"), form(""), posted(b"{"), posted([1]), posted({"location": LOCATION})]
)
def test_what_no_phone_sends(post: object) -> None:
    with pytest.raises(NotOurs):
        told(read, post)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["id", "lat", "lon", "timestamp", "speed", "cell", "wifi", "x"]), st.text())))
def test_any_query_is_taken_set_aside_or_not_ours(pairs: list[tuple[str, str]]) -> None:
    try:
        found = told(read, query("")._replace(query=pairs))
    except NotOurs:
        return
    assert len(found.records) + len(found.aside) == 1
