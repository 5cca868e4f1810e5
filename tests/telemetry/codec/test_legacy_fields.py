"""The older service's field rules and sentences, row by row as its clients know them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.codec import legacy_fields
from telemetry.codec.legacy_fields import check, check_message, missing_fields, rounded
from telemetry.codec.record_parser import Arrival
from telemetry.model import record
from telemetry.model.record import Sent

NOW_US = 1_795_500_000_000_000  # 2026-11-24T06:00:00Z
ARRIVAL = Arrival(NOW_US, NOW_US + 86_400_000_000)

REQUIRED = "This field is required."
WRONG_TIME = (
    "Datetime has wrong format. Use one of these formats instead: YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
)
GOOD = {"device_id": "123", "location": "Antalya", "speed": 60}


def accepted(**fields: object) -> tuple[dict[str, Any], Sent]:
    errors, echo, sent = check({**GOOD, **fields}, "http", ARRIVAL)
    assert not errors
    assert sent is not None
    return echo, sent


def errors_of(**fields: object) -> object:
    errors, echo, sent = check({**GOOD, **fields}, "http", ARRIVAL)
    assert (echo, sent) == ({}, None)
    return errors


def test_a_good_record_is_echoed_as_validated() -> None:
    echo, sent = accepted()
    assert json.dumps(echo, separators=(",", ":")) == '{"device_id":"123","location":"Antalya","speed":60.0}'
    assert (sent.device_id, sent.record.location, sent.record.speed_kmh) == ("123", "Antalya", 60.0)
    assert (sent.record.timestamp_us, sent.record.transport, sent.record.source) == (NOW_US, "http", "older")


def test_the_echo_keeps_the_order_of_the_older_service() -> None:
    value = {"timestamp": "2024-11-12", "speed": 1, "location": "x", "device_id": "d", "fuel": 7}
    assert list(check(value, "http", ARRIVAL).echo) == ["device_id", "location", "speed", "timestamp"]


# Text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["device_id", "location"])
@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        (123, "123"),
        (-2.50, "-2.5"),
        ("  x\t\n", "x"),
        ("a\nb\tc", "a\nb\tc"),
        ("x" * 255, "x" * 255),
        (" " + "x" * 255 + " ", "x" * 255),
        ("ü😀", "ü😀"),
    ],
)
def test_text_that_is_taken(field: str, sent: object, echoed: str) -> None:
    echo, found = accepted(**{field: sent})
    assert echo[field] == echoed
    assert (found.device_id if field == "device_id" else found.record.location) == echoed


@pytest.mark.parametrize("field", ["device_id", "location"])
@pytest.mark.parametrize(
    ("sent", "sentences"),
    [
        (None, ["This field may not be null."]),
        ("", ["This field may not be blank."]),
        (" \t\n", ["This field may not be blank."]),
        (True, ["Not a valid string."]),
        (["x"], ["Not a valid string."]),
        ({}, ["Not a valid string."]),
        ("x" * 256, ["Ensure this field has no more than 255 characters."]),
        ("a\0b", ["Null characters are not allowed."]),
        ("a\ud83d", ["Surrogate characters are not allowed: U+D83D."]),
        (
            "\0\udc00" + "x" * 256,
            [
                "Ensure this field has no more than 255 characters.",
                "Null characters are not allowed.",
                "Surrogate characters are not allowed: U+DC00.",
            ],
        ),
    ],
)
def test_text_that_is_refused(field: str, sent: object, sentences: list[str]) -> None:
    assert errors_of(**{field: sent}) == {field: sentences}


# Speed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [(60, 60.0), ("60", 60.0), (" 7 ", 7.0), ("1e2", 100.0), (True, 1.0), (-5, -5.0), (0.125, 0.125), (10**9, 1e9)],
)
def test_speed_that_is_taken(sent: object, echoed: float) -> None:
    echo, found = accepted(speed=sent)
    assert type(echo["speed"]) is float
    assert echo["speed"] == found.record.speed_kmh == echoed


@pytest.mark.parametrize(
    "sent", ["6,5", "", "fast", [1], {}, "NaN", "inf", "-Infinity", float("inf"), 10**400, "1e400"]
)
def test_speed_that_is_refused(sent: object) -> None:
    assert errors_of(speed=sent) == {"speed": ["A valid number is required."]}


def test_speed_that_is_null_or_an_endless_text() -> None:
    assert errors_of(speed=None) == {"speed": ["This field may not be null."]}
    assert errors_of(speed="1" * 1001) == {"speed": ["String value too large."]}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (60.0, "60.00"),
        (7, "7.00"),
        (1.005, "1.01"),
        (-0.125, "-0.13"),
        (0.125, "0.13"),
        (2.675, "2.68"),
        (0.004, "0.00"),
        (-0.001, "0.00"),
        (-5.0, "-5.00"),
        (99_999_999.99, "99999999.99"),
        (99_999_999.995, "100000000.00"),
        (1e-9, "0.00"),
        (1e22, "1" + "0" * 22 + ".00"),
        (1e30, "1" + "0" * 30 + ".00"),
    ],
)
def test_rounded_half_away_from_zero_as_written(number: float, text: str) -> None:
    assert rounded(number) == text


@pytest.mark.parametrize("number", [sys.float_info.max, -sys.float_info.max, sys.float_info.min, 5e-324])
def test_rounded_takes_every_speed(number: float) -> None:
    assert float(rounded(number)) == pytest.approx(number, abs=0.005)


# Time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("2024-11-12T10:25:00Z", "2024-11-12T10:25:00Z"),
        ("2024-11-12T10:25:00", "2024-11-12T10:25:00Z"),
        ("2024-11-12 10:25", "2024-11-12T10:25:00Z"),
        ("20241112T102500Z", "2024-11-12T10:25:00Z"),
        ("2024-11-12T10:25:00+03:00", "2024-11-12T07:25:00Z"),
        ("2024-11-12T10:25:00+0300", "2024-11-12T07:25:00Z"),
        ("2024-11-12T10:25:00+03", "2024-11-12T07:25:00Z"),
        ("2024-11-12T10:25:00-05:30", "2024-11-12T15:55:00Z"),
        ("2024-11-12T10:25:00.5Z", "2024-11-12T10:25:00.500000Z"),
        ("2024-11-12T10:25:00,5Z", "2024-11-12T10:25:00.500000Z"),
        ("2024-11-12T10:25:00.000Z", "2024-11-12T10:25:00Z"),
        ("2024-11-12T10:25:00.123456789Z", "2024-11-12T10:25:00.123456Z"),
        ("2024-11-12", "2024-11-12T00:00:00Z"),
        ("2024-W46-2", "2024-11-12T00:00:00Z"),
        ("2024-1-2 3:4", "2024-01-02T03:04:00Z"),
        ("2024-1-2T3:4:5.25 +03", "2024-01-02T00:04:05.250000Z"),
        ("2024-11-12T10:24:00", "2024-11-12T10:24:00Z"),
    ],
)
def test_time_is_echoed_in_utc_and_stored(sent: str, echoed: str) -> None:
    echo, found = accepted(timestamp=sent)
    assert echo["timestamp"] == echoed
    assert legacy_fields.time_text(legacy_fields.moment(found.record.timestamp_us)) == echoed


@pytest.mark.parametrize(
    "sent",
    [
        *(1_731_407_100, 1.5, True, [], {}),
        *(
            "1731407100",
            "",
            "yesterday",
            "Tue, 12 Nov 2024 10:25:00 GMT",
            "2024-11-12t10:25:00Z",
            "2024-11-12T10:25:00z",
        ),
        *("2024-02-30", "2024-02-30T10:00", "2024-11-12T24:00", "2024-11-12 24:00:00", "2024-11-12T10:25:00+25:00"),
    ],
)
def test_time_in_a_wrong_format(sent: object) -> None:
    assert errors_of(timestamp=sent) == {"timestamp": [WRONG_TIME]}


def test_time_that_is_null() -> None:
    assert errors_of(timestamp=None) == {"timestamp": ["This field may not be null."]}


@pytest.mark.parametrize(
    "sent",
    [
        *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),  # no year from 1 to 9999 in UTC
        *("0001-01-01", "1999-12-31T23:59:59Z", "2200-01-01", "2026-11-25T06:00:01Z", "9999-12-31"),  # ours
    ],
)
def test_time_out_of_range(sent: str) -> None:
    assert errors_of(timestamp=sent) == {"timestamp": ["Datetime value out of range."]}


# Several errors, other shapes ------------------------------------------------------------------------


def test_an_empty_record_lacks_all_three_fields() -> None:
    errors = check({}, "http", ARRIVAL).errors
    assert json.dumps(errors, separators=(",", ":")) == (
        '{"device_id":["This field is required."],"location":["This field is required."],'
        '"speed":["This field is required."]}'
    )


def test_one_missing_field() -> None:
    assert check({"device_id": "b", "speed": 1}, "http", ARRIVAL).errors == {"location": [REQUIRED]}


def test_all_fields_that_are_wrong_are_told_in_their_order() -> None:
    errors = errors_of(timestamp="x", speed="fast", location="", device_id=None)
    assert isinstance(errors, dict)
    assert list(errors.items()) == [
        ("device_id", ["This field may not be null."]),
        ("location", ["This field may not be blank."]),
        ("speed", ["A valid number is required."]),
        ("timestamp", [WRONG_TIME]),
    ]


@pytest.mark.parametrize(("value", "kind"), [(5, "int"), (1.5, "float"), ("a", "str"), (True, "bool"), ([], "list")])
def test_what_stands_in_place_of_a_record(value: object, kind: str) -> None:
    sentence = f"Invalid data. Expected a dictionary, but got {kind}."
    assert check(value, "http", ARRIVAL).errors == {"non_field_errors": [sentence]}


def test_null_in_place_of_a_record_is_a_list() -> None:
    assert check(None, "http", ARRIVAL).errors == ["This field may not be null."]


def test_unknown_fields_are_not_echoed_but_kept() -> None:
    echo, found = accepted(id=7, fuel=None, ignition=[True])
    assert list(echo) == ["device_id", "location", "speed"]
    assert json.loads(found.record.attributes or "") == {"id": 7, "fuel": None, "ignition": [True]}


def test_what_only_whimbrel_knows_is_used() -> None:
    _, found = accepted(latitude=1.5, longitude=2.5, heading=90)
    assert (found.record.latitude, found.record.longitude, found.record.heading_deg) == (1.5, 2.5, 90)
    assert accepted(location="41.5,28.25")[1].record.has_fix
    assert not accepted(location="123.456,78.901")[1].record.has_fix
    assert accepted(time=1_731_407_100)[1].record.timestamp_us == 1_731_407_100_000_000


def test_another_name_beside_a_field_of_the_older_service_is_an_attribute() -> None:
    echo, found = accepted(timestamp="2024-11-12", time="noon", speed_kmh=7)
    assert echo["timestamp"] == "2024-11-12T00:00:00Z"
    assert found.record.speed_kmh == 60
    assert json.loads(found.record.attributes or "") == {"time": "noon", "speed_kmh": 7}


def test_further_names_in_another_case() -> None:
    _, found = accepted(Latitude=1.5, LON=2.5, Time=1_731_407_100, SPEED="fast")
    assert (found.record.latitude, found.record.longitude) == (1.5, 2.5)
    assert found.record.timestamp_us == 1_731_407_100_000_000
    assert json.loads(found.record.attributes or "") == {"SPEED": "fast"}, "the older service's own name counts"


def test_a_tcp_message_may_write_its_place_in_another_case() -> None:
    found = check_message([{"device_id": "e", "Lat": 1, "Lng": 2}], ARRIVAL)
    assert [(one.record.latitude, one.record.longitude) for one in found if isinstance(one, Sent)] == [(1, 2)]


DEEP: list[Any] = []
for _ in range(40):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("further", "used", "kept"),
    [
        ({"lat": "abc"}, {}, {"lat": "abc"}),
        ({"latitude": 91, "longitude": 0}, {"longitude": 0}, {"latitude": 91}),
        ({"heading": "north", "altitude": [1], "acc": 5}, {"accuracy_m": 5}, {"heading": "north", "altitude": [1]}),
        ({"lat": 1, "latitude": 2, "lon": 3, "fuel": 4}, {"latitude": 1, "longitude": 3}, {"latitude": 2, "fuel": 4}),
        ({"lat": None, "latitude": 2, "lng": "east"}, {"latitude": 2}, {"lng": "east"}),
        ({"time": "noon", "fuel": 4}, {"timestamp_us": NOW_US}, {"time": "noon", "fuel": 4}),
        ({"time": "1999-12-31"}, {"timestamp_us": NOW_US}, {"time": "1999-12-31"}),
        ({"heading": 2, "course": 3, "attributes": {"fuel": 4}}, {"heading_deg": 2}, {"course": 3, "fuel": 4}),
        ({"attributes": [1], "fuel": 4}, {}, {"attributes": [1], "fuel": 4}),
        ({"attributes": {"fuel": 1}, "fuel": 4}, {}, {"attributes": {"fuel": 1}, "fuel": 4}),
        ({"lat": DEEP, "fuel": DEEP, "ignition": True}, {}, {"ignition": True}),
        ({"attributes": {"fuel": DEEP, "ignition": True}}, {}, {}),
        ({"fuel": "\ud800", "\ud800": 1}, {}, {}),
        ({"fuel": float("inf"), "heading": float("nan")}, {}, {}),
        ({"fuel": "x" * 2**20}, {}, {}),
    ],
)
def test_what_can_not_be_used_by_its_name_is_kept_as_sent_if_it_can(
    further: dict[str, object], used: dict[str, object], kept: dict[str, object]
) -> None:
    echo, sent = accepted(**further)
    assert list(echo) == ["device_id", "location", "speed"]
    assert {field: getattr(sent.record, field) for field in used} == used
    assert json.loads(sent.record.attributes or "{}") == kept


def test_a_bad_timestamp_is_refused_whatever_else_is_sent() -> None:
    assert errors_of(timestamp="1999-12-31", lat="abc") == {"timestamp": ["Datetime value out of range."]}


def test_speed_beyond_every_number_in_kmh() -> None:
    knots = ARRIVAL._replace(speed_unit="knots")
    assert check({**GOOD, "speed": 1e308}, "http", knots).errors == {"speed": ["A valid number is required."]}


# TCP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ([], []),
        ([GOOD, {}], ["device_id", "location", "speed"]),
        ([{"location": 1, "speed": 1}], ["device_id"]),
        ([{"device_id": 1, "location": 1}, {"speed": 1, "device_id": 1}, GOOD], ["location", "speed"]),
        ([{"speed": None}, {"location": 1}], ["device_id", "location", "speed"]),
        ([{"device_id": None, "location": None, "speed": None}], []),
        ([{"latitude": 1, "longitude": 2}], ["device_id"]),
        ([{"device_id": 1, "lat": 1, "lng": 2}], []),
        ([{"device_id": 1, "lat": 1, "lon": None}], ["location", "speed"]),
        ([5, [], "device_id", None], []),
    ],
)
def test_missing_fields_are_a_union_in_one_order(values: list[object], missing: list[str]) -> None:
    assert missing_fields(values) == missing


def test_a_tcp_message_that_lacks_fields() -> None:
    assert check_message([GOOD, {"speed": "x"}], ARRIVAL) == "Invalid input data. Missing fields: device_id, location"


@pytest.mark.parametrize(
    "value",
    [
        *(5, "a", None, [1, 2], True),
        *({**GOOD, field: None} for field in GOOD),
        {**GOOD, "location": " "},
        {**GOOD, "device_id": "x" * 256},
        {**GOOD, "speed": "NaN"},
        {**GOOD, "timestamp": "yesterday"},
        {**GOOD, "timestamp": "1999-01-01"},
        {"device_id": "a", "lat": 91, "lon": 2},
        {"device_id": "a", "speed": 1, "lat": 1, "lon": "east"},
    ],
)
def test_a_tcp_message_with_a_bad_value(value: object) -> None:
    assert check_message([GOOD, value], ARRIVAL) == "Invalid input data format."


def test_a_good_tcp_message() -> None:
    records = check_message([GOOD, {"device_id": "e", "lat": 1, "lon": 2}], ARRIVAL)
    assert isinstance(records, list)
    assert [sent.device_id for sent in records] == ["123", "e"]
    assert {sent.record.transport for sent in records} == {"tcp"}
    assert (records[1].record.speed_kmh, records[1].record.location) == (None, None)
    assert check_message([], ARRIVAL) == []


@pytest.mark.parametrize("further", [{"latitude": 91}, {"heading": "north"}, {"fuel": "\ud800"}, {"attributes": 1}])
@pytest.mark.parametrize("record", [GOOD, {"device_id": "e", "lat": 1, "lon": 2}])
def test_further_fields_never_spoil_a_tcp_message(record: dict[str, object], further: dict[str, object]) -> None:
    records = check_message([{**further, **record}], ARRIVAL)
    assert isinstance(records, list)
    assert len(records) == 1


# Any value -------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.datetimes().map(str)
names = st.sampled_from(["device_id", "location", "speed", "timestamp", "time", "lat", "lon", "attributes", "fuel"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=6
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(values | st.dictionaries(names, values).map(lambda some: {**GOOD, **some}))
def test_any_value_is_a_record_that_can_rest_or_has_errors(value: object) -> None:
    errors, echo, sent = check(value, "http", ARRIVAL)
    assert (sent is None) == bool(errors)
    if sent is not None:
        assert record.decode(record.encode(sent.record)) == sent.record
        assert json.dumps(echo, allow_nan=False)
    assert isinstance(check_message([value], ARRIVAL), str | list)
