"""From a sender's JSON object to a record: names, units, types, bounds, times, and what is kept as sent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.codec.record_parser import KMH, MAX_DEPTH, NAMES, NUMBERS, Arrival, read
from telemetry.model import record
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Sent

NOW_US = 1_795_500_000_000_000  # 2026-11-24T06:00:00Z
DAY_US = 86_400_000_000
ARRIVAL = Arrival(NOW_US, NOW_US + DAY_US)
TIME_US = 1_731_407_100_000_000  # 2024-11-12T10:25:00Z

MEASURED = {
    "latitude": "latitude",
    "lat": "latitude",
    "longitude": "longitude",
    "lon": "longitude",
    "lng": "longitude",
    "altitude_m": "altitude_m",
    "altitude": "altitude_m",
    "alt": "altitude_m",
    "speed_kmh": "speed_kmh",
    "speed": "speed_kmh",
    "heading_deg": "heading_deg",
    "heading": "heading_deg",
    "bearing": "heading_deg",
    "course": "heading_deg",
    "accuracy_m": "accuracy_m",
    "accuracy": "accuracy_m",
    "acc": "accuracy_m",
}
"""The names of numbers that the documentation promises, and the column that each fills."""


def made(arrival: Arrival = ARRIVAL, /, **fields: object) -> Record:
    return read({"device_id": "d", **fields}, "http", "json", arrival).record


def refused(value: object, arrival: Arrival = ARRIVAL) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(value, "http", "json", arrival)
    return caught.value


def refused_field(arrival: Arrival = ARRIVAL, /, **fields: object) -> RecordError:
    return refused({"device_id": "d", **fields}, arrival)


def attributes_of(found: Record) -> dict[str, Any]:
    assert found.attributes is not None
    return json.loads(found.attributes)  # type: ignore[no-any-return]


# The record as a whole -------------------------------------------------------------------------------


def test_a_device_id_is_enough() -> None:
    sent = read({"device_id": "d"}, "tcp", "older", ARRIVAL)
    assert sent == Sent("d", Record(NOW_US, "tcp", "older"))
    assert not sent.record.has_fix


def test_all_fields_by_their_own_names() -> None:
    values = {
        "latitude": 53.4,
        "longitude": -2.98,
        "altitude_m": 12,
        "speed_kmh": 50.5,
        "heading_deg": 359.9,
        "accuracy_m": 3,
        "location": "Lime Street",
    }
    found = made(**values, timestamp="2024-11-12T10:25:00Z", attributes={"ignition": True})
    assert {name: getattr(found, name) for name in values} == values
    assert (found.timestamp_us, attributes_of(found)) == (TIME_US, {"ignition": True})
    assert found.has_fix


@pytest.mark.parametrize(
    ("value", "what"),
    [(None, "null"), (5, "a number"), (5.5, "a number"), ("x", "text"), (True, "true or false"), ([], "an array")],
)
def test_a_record_is_an_object(value: object, what: str) -> None:
    error = refused(value)
    assert (error.field, error.value, error.reason) == (None, value, f"a record must be an object, not {what}")


def test_null_is_as_if_absent() -> None:
    names = set(NAMES.values()) - {"device_id"}
    assert made(**dict.fromkeys(names)) == made()


# Names and units -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "field"), MEASURED.items())
def test_every_name_of_a_number(name: str, field: str) -> None:
    found = made(**{name: 1.5})
    assert [f for f in MEASURED.values() if getattr(found, f) is not None and f != field] == []
    assert getattr(found, field) == 1.5


@pytest.mark.parametrize("name", ["timestamp", "time"])
def test_every_name_of_the_time(name: str) -> None:
    assert made(**{name: TIME_US // 1_000_000}).timestamp_us == TIME_US


def test_no_name_is_undocumented() -> None:
    texts = {name: name for name in ("device_id", "location", "attributes", "timestamp")}
    assert {**MEASURED, **texts, "time": "timestamp"} == NAMES


@pytest.mark.parametrize(("unit", "kmh"), [("kmh", 10.0), ("knots", 18.52), ("ms", 36.0), ("mph", 16.09344)])
def test_a_plain_speed_has_the_unit_of_its_listener(unit: str, kmh: float) -> None:
    arrival = ARRIVAL._replace(speed_unit=unit)
    assert made(arrival, speed=10).speed_kmh == pytest.approx(kmh)
    assert made(arrival, speed="10").speed_kmh == pytest.approx(kmh)
    assert made(arrival, speed_kmh=10).speed_kmh == 10, "the name says the unit"


def test_a_speed_beyond_all_numbers_in_kmh_is_refused() -> None:
    error = refused_field(ARRIVAL._replace(speed_unit="ms"), speed=1.7e308)
    assert (error.field, error.reason) == ("speed_kmh", "must be a finite number")


@pytest.mark.parametrize(
    ("first", "second"),
    [(a, b) for a in NAMES for b in NAMES if a != b and NAMES[a] == NAMES[b]],
)
def test_two_names_for_one_field_are_refused(first: str, second: str) -> None:
    error = refused_field(**{first: 1, second: 1})
    assert (error.field, error.reason) == (NAMES[first], f"sent twice, the second time as {second!r}")


@pytest.mark.parametrize("change", [str.upper, str.title, str.capitalize])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_in_any_case(name: str, change: Callable[[str], str]) -> None:
    texts = {"device_id": "d", "location": "quay", "attributes": {"fuel": 1}}
    value = texts.get(name, 5 if NAMES[name] != "timestamp" else TIME_US // 1_000_000)
    as_usual, changed = ({"device_id": "d", one: value} for one in (name, change(name)))
    if name == "device_id":
        del changed["device_id"]
    assert read(changed, "http", "json", ARRIVAL) == read(as_usual, "http", "json", ARRIVAL)


def test_a_plain_speed_in_another_case_has_the_unit_of_its_listener() -> None:
    arrival = ARRIVAL._replace(speed_unit="ms")
    assert (made(arrival, Speed=10).speed_kmh, made(arrival, Speed_KMH=10).speed_kmh) == (36, 10)


def test_an_attribute_never_hides_a_field_of_another_case() -> None:
    error = refused_field(speed=1, Speed="fast")
    assert (error.field, error.reason) == ("speed_kmh", "sent twice, the second time as 'Speed'")
    found = made(speed=1, attributes={"Speed": "fast"}, Fuel=5)
    assert attributes_of(found) == {"Speed": "fast", "Fuel": 5}, "other names keep their case"


def test_a_key_is_kept_in_no_case() -> None:
    assert attributes_of(made(Token="wk_" + "a" * 8, TOKEN="5")) == {"TOKEN": "5"}


# Numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize(
    ("value", "number"),
    [(0, 0.0), (-7, -7.0), (55.5, 55.5), ("55.5", 55.5), (" 7 ", 7.0), ("-1e2", -100.0), (10**300, 1e300)],
)
def test_numbers_and_text_of_numbers(field: str, value: object, number: float) -> None:
    found = getattr(made(**{field: value}), field)
    assert type(found) is float
    assert found == number


@pytest.mark.parametrize("field", [*NUMBERS, "latitude", "longitude"])
@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        *["nan", "NaN", "inf", "-Infinity", "1e400", "", " ", "fast", "6,5", "1_000", "0x10", "٣", "1\x00"],
    ],
)
def test_what_is_no_finite_number(field: str, value: object) -> None:
    error = refused_field(**{field: value})
    assert (error.field, error.reason) == (field, "must be a finite number")
    assert error.value is value


@pytest.mark.parametrize("field", [*NUMBERS, "latitude", "longitude"])
@pytest.mark.parametrize(("value", "what"), [(True, "true or false"), ([1], "an array"), ({}, "an object")])
def test_what_is_no_number_at_all(field: str, value: object, what: str) -> None:
    error = refused_field(**{field: value})
    assert (error.field, error.value, error.reason) == (field, value, f"must be a number, not {what}")


@pytest.mark.parametrize(("field", "bound"), [("latitude", 90), ("longitude", 180)])
def test_coordinates_have_bounds(field: str, bound: int) -> None:
    for good in (bound, -bound, f"{bound}.0"):
        assert abs(getattr(made(**{field: good}), field)) == bound
    for bad in (math.nextafter(bound, 1000), -bound - 1, str(bound + 0.1)):
        error = refused_field(**{field: bad})
        assert (error.field, error.value) == (field, bad)
        assert error.reason == f"must be between -{bound} and {bound}"


def test_half_a_position_is_kept_but_is_no_fix() -> None:
    found = made(lat=5)
    assert (found.latitude, found.longitude, found.has_fix) == (5, None, False)


# Device ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "device"),
    [
        *((text, text) for text in ("d", " d ", "a/b?c#d%", "ş😀", "x" * 255, "a\nb")),
        *((number, str(number)) for number in (123, -5, 2**64, 10**254)),
    ],
)
def test_a_device_id_is_text_or_an_integer(sent: object, device: str) -> None:
    assert read({"device_id": sent}, "http", "json", ARRIVAL).device_id == device


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (None, "required"),
        (True, "must be text, not true or false"),
        (1.5, "must be text, not a number"),
        ([], "must be text, not an array"),
        ({}, "must be text, not an object"),
        ("", "must not be blank"),
        (" \t", "must not be blank"),
        ("x" * 256, "must have at most 255 characters, not 256"),
        (10**255, "must have at most 255 characters, not 256"),
        (10**4000, "must have at most 255 characters, not 4001"),
        ("a\0", "must not hold a NUL character"),
        ("a\ud83d", "must not hold a lone surrogate"),
    ],
)
def test_what_is_no_device_id(sent: object, reason: str) -> None:
    error = refused({"device_id": sent})
    assert (error.field, error.reason) == ("device_id", reason)


def test_a_missing_device_id_is_named() -> None:
    assert str(refused({})) == "device_id: required"


# Time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        "2024-11-12T10:25:00Z",
        "2024-11-12T10:25:00",
        "2024-11-12 10:25",
        "2024-11-12t10:25:00z",
        "20241112T102500Z",
        "2024-11-12T10:25:00.000Z",
        "2024-11-12T10:25:00,0Z",
        "2024-11-12T13:25:00+03:00",
        "2024-11-12T13:25:00+0300",
        "2024-11-12T13:25+03",
        "2024-11-12T04:55:00-05:30",
        "2024-W46-2T10:25:00Z",
        "  2024-11-12T10:25:00Z ",
        1_731_407_100,
        1_731_407_100_000,
        1_731_407_100.0,
        1_731_407_100_000.0,
        "1731407100",
        "1731407100000",
        " 1731407100.0 ",
    ],
)
def test_one_moment_in_many_forms(sent: object) -> None:
    assert made(timestamp=sent).timestamp_us == TIME_US


@pytest.mark.parametrize(
    ("sent", "timestamp_us"),
    [
        ("2024-11-12T10:25:00.123456789Z", TIME_US + 123_456),
        ("2024-11-12T10:25:00.5", TIME_US + 500_000),
        (1_731_407_100.123456, TIME_US + 123_456),
        (1_731_407_100_123, TIME_US + 123_000),
        (1_731_407_100_123.456, TIME_US + 123_456),
        ("1731407100.25", TIME_US + 250_000),
        ("2024-11-12", 1_731_369_600_000_000),
        ("2024-W46-2", 1_731_369_600_000_000),
        ("2000-01-01", EARLIEST_US),
        (946_684_800, EARLIEST_US),
    ],
)
def test_moments_with_and_without_a_fraction(sent: object, timestamp_us: int) -> None:
    assert made(timestamp=sent).timestamp_us == timestamp_us


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "yesterday",
        "12/11/2024",
        "Tue, 12 Nov 2024 10:25:00 GMT",
        "2024-02-30",
        "2024-11-12T25:00",
        "2024-11",
        "2024-11-12T",
        "nan",
        "inf",
        "1_731",
        "2024-11-12+03:00",
        "2024-11-12-10:25",
        "2024-11-12T10:25:00Z[UTC]",
        "2024-11-12T10:25:00+24:00",
        "٢٠٢٤-11-12",
        "1e400",
    ],
)
def test_text_that_is_no_time(sent: str) -> None:
    error = refused_field(timestamp=sent)
    assert (error.field, error.value) == ("timestamp", sent)
    assert error.reason == "must be ISO 8601, like 2026-11-24T10:25:00Z, or an epoch in s or ms"


@pytest.mark.parametrize(("sent", "what"), [(True, "true or false"), ([1], "an array"), ({}, "an object")])
def test_what_is_no_time_at_all(sent: object, what: str) -> None:
    assert refused_field(time=sent).reason == f"must be text or a number, not {what}"


@pytest.mark.parametrize("sent", [math.nan, math.inf, -math.inf])
def test_no_time_is_infinite(sent: float) -> None:
    error = refused_field(timestamp=sent)
    assert (error.field, error.reason) == ("timestamp", "must be a finite number")


@pytest.mark.parametrize(
    "sent",
    [
        *(0, -1, 1, 946_684_799, 7_258_118_400_000, 10**17, 10**30, -(10**4000), 1e300),
        *["1999-12-31T23:59:59.999999Z", "0001-01-01", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"],
        *["2200-01-01", "20241112", "2024", "999999999999999999"],
    ],
)
def test_a_time_out_of_range(sent: object) -> None:
    arrival = Arrival(NOW_US)
    error = refused_field(arrival, timestamp=sent)
    assert (error.field, error.value) == ("timestamp", sent)
    assert error.reason == "must be between 2000-01-01 and 2200-01-01"


def test_a_time_too_far_ahead() -> None:
    assert made(timestamp=(NOW_US + DAY_US) / 1_000_000).timestamp_us == NOW_US + DAY_US
    error = refused_field(timestamp=(NOW_US + DAY_US) // 1_000 + 1_000)
    assert (error.field, error.reason) == (
        "timestamp",
        "must not be after 2026-11-25T06:00:00Z, too far ahead of the box's clock",
    )


def test_nothing_is_too_far_ahead_of_a_clock_that_is_not_trusted() -> None:
    assert made(Arrival(EARLIEST_US), timestamp="2199-12-31").timestamp_us < LATEST_US


# Location --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "latitude", "longitude"),
    [
        ("41.5,28.25", 41.5, 28.25),
        (" -41 , +28.25 ", -41.0, 28.25),
        ("90,180", 90.0, 180.0),
        ("-90,-180", -90.0, -180.0),
        ("0,0", 0.0, 0.0),
        ("+08.5,007", 8.5, 7.0),
    ],
)
def test_a_valid_pair_fills_the_coordinates(location: str, latitude: float, longitude: float) -> None:
    found = made(location=location)
    assert (found.location, found.latitude, found.longitude) == (location, latitude, longitude)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "Antalya",
        "123.456,78.901",
        "41.5",
        "41.5,28.5,7",
        "41.5;28.5",
        "90.001,0",
        "0,180.5",
        "nan,nan",
        "41°,28°",
        "1e1,5",
        "٣,٤",
        "41.5,",
        "a\nb",
    ],
)
def test_any_other_text_is_only_text(location: str) -> None:
    found = made(location=location)
    assert (found.location, found.has_fix) == (location, False)
    assert found.latitude is found.longitude is None


@pytest.mark.parametrize(
    ("more", "expected"), [({"lat": 1, "lon": 2}, (1, 2)), ({"lat": 1}, (1, None)), ({"lng": 2}, (None, 2))]
)
def test_coordinates_that_came_win(more: dict[str, int], expected: tuple[float, float]) -> None:
    found = made(location="41.5,28.25", **more)
    assert (found.location, found.latitude, found.longitude) == ("41.5,28.25", *expected)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (5, "must be text, not a number"),
        ([], "must be text, not an array"),
        ("a\0", "must not hold a NUL character"),
        ("\udc00", "must not hold a lone surrogate"),
        ("ü" * 101, "must have at most 200 bytes"),
    ],
)
def test_what_is_no_location(sent: object, reason: str) -> None:
    error = refused_field(ARRIVAL._replace(max_record_bytes=200), location=sent)
    assert (error.field, error.reason) == ("location", reason)


def test_a_location_may_have_as_many_bytes_as_a_record() -> None:
    assert made(ARRIVAL._replace(max_record_bytes=200), location="ü" * 100).location == "ü" * 100


# Attributes ------------------------------------------------------------------------------------------


def test_unknown_fields_and_attributes_are_kept_as_sent() -> None:
    kept = {"ignition": True, "fuel": None, "io239": -1, "battery_v": 3.7, "name": "ü😀", "deep": {"a": [1, {"b": []}]}}
    assert attributes_of(made(**kept)) == kept
    assert attributes_of(made(attributes=kept)) == kept
    assert attributes_of(made(attributes=kept, extra="5")) == {**kept, "extra": "5"}
    assert made(attributes={}).attributes is None


def test_big_integers_survive() -> None:
    text = b'{"device_id":"d","imei":123456789012345678901234567890,"least":-9223372036854775809}'
    found = read(msgspec.json.decode(text), "http", "json", ARRIVAL).record
    assert found.attributes == '{"imei":123456789012345678901234567890,"least":-9223372036854775809}'


def test_a_name_in_attributes_means_nothing_else() -> None:
    found = made(attributes={"latitude": "north", "device_id": 7, "attributes": 1})
    assert found.latitude is None
    assert attributes_of(found) == {"latitude": "north", "device_id": 7, "attributes": 1}


def test_the_same_name_beside_and_inside_attributes_is_refused() -> None:
    error = refused_field(attributes={"a": 1, "b": 2}, b=3)
    assert (error.field, error.value, error.reason) == ("b", 3, "sent twice, both outside and inside `attributes`")


@pytest.mark.parametrize(
    ("sent", "what"), [([], "an array"), ("{}", "text"), (5, "a number"), (False, "true or false")]
)
def test_attributes_are_an_object(sent: object, what: str) -> None:
    error = refused_field(attributes=sent)
    assert (error.field, error.reason) == ("attributes", f"must be an object, not {what}")


def nested(depth: int, kind: type) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize("kind", [dict, list])
def test_attributes_have_a_deepest_nesting(kind: type) -> None:
    assert made(a=nested(MAX_DEPTH - 1, kind)).attributes is not None
    for depth in (MAX_DEPTH, 100_000):
        error = refused_field(a=nested(depth, kind))
        assert (error.field, error.reason) == ("attributes", f"must not be nested deeper than {MAX_DEPTH}")


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], {"b": {"c": [1, math.nan]}}])
def test_attributes_hold_no_number_that_json_lacks(value: object) -> None:
    error = refused_field(a=value)
    assert (error.field, error.reason) == ("attributes", "must not hold a number that is not finite")


@pytest.mark.parametrize("more", [{"a": "\ud800"}, {"\udfff": 1}, {"a": ["\ud800"]}])
def test_attributes_hold_no_text_that_utf8_lacks(more: dict[str, object]) -> None:
    assert refused({"device_id": "d", **more}).field == "attributes"


def test_attributes_have_a_greatest_size() -> None:
    arrival = ARRIVAL._replace(max_record_bytes=20)
    assert made(arrival, a="x" * 12).attributes == '{"a":"xxxxxxxxxxxx"}'
    error = refused_field(arrival, a="x" * 13)
    assert (error.field, error.reason) == ("attributes", "must have at most 20 bytes, not 21")


# Any value -------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(), st.integers(-(10**400), 10**400), st.floats(), st.floats(-200, 200), st.integers(10**9, 2 * 10**12)
)
texts = st.one_of(
    st.text(st.characters()), numbers.map(str), st.datetimes().map(str), st.tuples(numbers, numbers).map(str)
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
objects = st.dictionaries(st.one_of(st.sampled_from(sorted(NAMES)), texts), values, max_size=6)


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.one_of(values, objects, objects.map(lambda some: {"device_id": "d", **some})), st.sampled_from(sorted(KMH)))
def test_any_value_is_a_record_that_can_rest_or_a_record_error(value: object, unit: str) -> None:
    try:
        sent = read(value, "tcp", "json", ARRIVAL._replace(speed_unit=unit))
    except RecordError:
        return
    assert record.decode(record.encode(sent.record)) == sent.record
    assert 0 < len(sent.device_id.encode()) <= 4 * 255
    if sent.record.attributes is not None:
        json.loads(sent.record.attributes)


finite = st.none() | st.floats(allow_nan=False, allow_infinity=False)
plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(NUMBERS, finite)
        | {
            "device_id": plain_text.filter(str.strip).map(lambda text: text[:255]).filter(str.strip),
            "latitude": st.floats(-90, 90),
            "longitude": st.floats(-180, 180),
            "location": plain_text,
            "timestamp": st.integers(EARLIEST_US, NOW_US).map(lambda us: us / 1_000_000),
            "attributes": st.none() | st.dictionaries(plain_text, finite | plain_text, min_size=1),
        }
    )
)
def test_a_good_record_comes_back_as_it_was_sent(value: dict[str, Any]) -> None:
    sent = read(value, "http", "json", ARRIVAL)
    rested = record.decode(record.encode(sent.record))
    assert rested == sent.record
    assert sent.device_id == value["device_id"]
    for name in ("latitude", "longitude", "altitude_m", "speed_kmh", "heading_deg", "accuracy_m", "location"):
        assert getattr(rested, name) == value[name]
    assert abs(rested.timestamp_us - value["timestamp"] * 1_000_000) <= 1
    assert (rested.attributes and json.loads(rested.attributes)) == value["attributes"]
