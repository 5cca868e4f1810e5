"""OwnTracks: whose a location is, what it says, and that everything else is answered as taken."""

from __future__ import annotations

import pytest

from collector.http_protocols.owntracks import read
from collector.http_protocols.protocol import NotOurs, Post
from tests.collector.http_protocols.posting import only, posted, told

GOOD = {"_type": "location", "tid": "d1", "lat": 41.0082, "lon": 28.9784, "tst": 1772366400, "vel": 36, "cog": 270}


def test_a_location() -> None:
    message = {**GOOD, "alt": 35, "acc": 5, "batt": 46, "conn": "w", "t": "u"}
    found = told(read, posted(message))
    assert (found.status, found.body) == (200, b"[]")
    device, record, attributes = only(found)
    assert (device, record.source, record.timestamp_us) == ("d1", "owntracks", 1_772_366_400_000_000)
    assert (record.latitude, record.speed_kmh, record.altitude_m, record.accuracy_m) == (41.0082, 36, 35, 5)
    assert attributes == {"battery_percent": 46, "conn": "w", "event": "u"}


def test_a_tracker_tells_more() -> None:
    message = {**GOOD, "uext": 12.6, "ubatt": 4.1, "ign": True, "odometer": 12.5, "t": "!", "temp_c-00": 21.5}
    _, _, attributes = only(told(read, posted(message)))
    expected = {"external_v": 12.6, "battery_v": 4.1, "ignition": True, "odometer_m": 12_500, "alarm": "tow"}
    assert attributes == {**expected, "event": "!", "temperature_c": 21.5}


@pytest.mark.parametrize(
    ("told_by", "expected"),
    [
        ({"t": "9"}, {"alarm": "low_battery"}),
        ({"t": "e"}, {"alarm": "power_cut"}),
        ({"t": "E"}, {"alarm": "power_restored"}),
        ({"t": "h", "rty": 1}, {"alarm": "hard_acceleration"}),
        ({"t": "h", "rty": 3}, {"alarm": "hard_braking"}),
        ({"t": "h", "rty": 9}, {}),
        ({"t": "i"}, {"ignition": True}),
        ({"t": "I"}, {"ignition": False}),
        ({"name": "VIN1"}, {"vin": "VIN1"}),
        ({"hmc": 5_400}, {"engine_hours": 1.5}),
        ({"temp_c-01": -4}, {"temperature2_c": -4}),
        ({"t": 5}, {}),
    ],
)
def test_what_trackers_mean(told_by: dict[str, object], expected: dict[str, object]) -> None:
    _, _, attributes = only(told(read, posted({**GOOD, **told_by})))
    assert attributes.items() >= expected.items()
    assert ("alarm" in attributes) == ("alarm" in expected)


@pytest.mark.parametrize(
    ("message", "query", "headers", "user", "device"),
    [
        ({"topic": "owntracks/ann/phone"}, [("u", "x"), ("d", "y")], {}, "", "owntracks/ann/phone"),
        ({}, [("u", "ann"), ("d", "phone")], {}, "", "owntracks/ann/phone"),
        ({}, [], {"x-limit-u": "ann", "x-limit-d": "phone"}, "", "owntracks/ann/phone"),
        ({}, [], {"x-limit-d": "phone"}, "ann", "owntracks/ann/phone"),
        ({}, [], {"x-limit-u": "ann"}, "", "d1"),
    ],
    ids=["topic", "query", "headers", "login", "letters"],
)
def test_whose_it_is(
    message: dict[str, str], query: list[tuple[str, str]], headers: dict[str, str], user: str, device: str
) -> None:
    post = posted({**GOOD, **message}, **headers)._replace(query=query, user=user)
    assert only(told(read, post))[0] == device


@pytest.mark.parametrize(
    "value",
    [b"", b" \r\n", {"_type": "transition", "tst": 1}, {"_type": "encrypted", "data": "AAAA"}, {}, []],
)
def test_what_is_no_location_is_answered_as_taken(value: object) -> None:
    found = told(read, posted(value))
    assert (found.status, found.body, found.records, found.aside) == (200, b"[]", [], ())


def test_several_at_once_and_the_bad_one_set_aside() -> None:
    found = told(read, posted([GOOD, {**GOOD, "lat": 91}, {"_type": "lwt"}, {**GOOD, "tid": "d2"}]))
    assert [sent.device_id for sent in found.records] == ["d1", "d2"]
    assert [aside.device_id for aside in found.aside] == ["d1"]


@pytest.mark.parametrize("body", [b"{", b"1", b'["x"]', b"[" * 1_000])
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(NotOurs):
        told(read, Post([], {}, body))
