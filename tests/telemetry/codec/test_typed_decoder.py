"""The quick way to records: what it takes, it takes as the plain way does, and all else it leaves to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.codec import typed_decoder
from telemetry.codec.json_compat import json_like
from telemetry.codec.record_parser import KMH, NAMES, Arrival, read
from telemetry.codec.typed_decoder import LEARN_RECORDS, MAX_KEPT, MAX_NAMES, MAX_SHAPES, MAX_TRIED, Shapes
from telemetry.model.errors import RecordError
from telemetry.model.record import Record, Sent

NOW_US = 1_795_500_000_000_000  # 2026-11-24T06:00:00Z
ARRIVAL = Arrival(NOW_US, NOW_US + 86_400_000_000)
USUAL: dict[str, Any] = {
    "device_id": "d",
    "time": "2026-11-24T05:00:00Z",
    "lat": 53.4,
    "lon": -2.9,
    "speed": 48.5,
    "ignition": True,
    "fuel": 61,
}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed_decoder, "_known", {})
    monkeypatch.setattr(typed_decoder, "_counts", {})


def learnt(*values: dict[str, Any]) -> Shapes:
    """What knows the names of these records."""
    found = Shapes()
    found.learn(values, LEARN_RECORDS)
    return found


def plain(value: object, arrival: Arrival = ARRIVAL) -> Sent:
    return read(json_like(value), "tcp", "json", arrival)


def quick(found: Shapes, value: object, arrival: Arrival = ARRIVAL) -> list[Sent] | None:
    return found.json(json.dumps(value).encode(), "tcp", "json", arrival)


# What it takes ---------------------------------------------------------------------------------------


def test_nothing_is_taken_before_names_are_known() -> None:
    assert quick(Shapes(), USUAL) is None
    assert not Shapes().any


def test_a_record_of_known_names_is_read_as_the_plain_way_reads_it() -> None:
    assert quick(learnt(USUAL), USUAL) == [plain(USUAL)]


def test_one_or_many_in_each_form() -> None:
    found, many = learnt(USUAL), [USUAL, USUAL | {"device_id": 7, "fuel": None}]
    expected = [plain(one) for one in many]
    assert found.json(json.dumps(many).encode(), "tcp", "json", ARRIVAL) == expected
    assert found.json_lines(b"\n".join(json.dumps(one).encode() for one in many), "tcp", "json", ARRIVAL) == expected
    assert found.msgpack(msgpack.packb(many), "tcp", "json", ARRIVAL) == expected
    assert found.msgpack(msgspec.Raw(msgpack.packb(USUAL)), "tcp", "json", ARRIVAL) == expected[:1]


def test_names_may_be_missing() -> None:
    found = learnt(USUAL)
    for name in USUAL.keys() - {"device_id"}:
        value = {key: item for key, item in USUAL.items() if key != name}
        assert quick(found, value) == [plain(value)], name


def test_fields_that_were_never_sent_are_taken_by_their_own_names() -> None:
    value = USUAL | {"altitude_m": 33.5, "location": "53.1,-2.7"}
    assert quick(learnt(USUAL), value) == [plain(value)]


def test_a_place_fills_the_coordinates() -> None:
    value = {"device_id": "d", "location": "53.1,-2.7"}
    [sent] = quick(learnt(value), value) or []
    assert (sent.record.latitude, sent.record.longitude) == (53.1, -2.7)


@pytest.mark.parametrize("unit", sorted(KMH))
def test_a_speed_is_in_the_unit_of_the_listener(unit: str) -> None:
    arrival = ARRIVAL._replace(speed_unit=unit)
    for name in ("speed", "speed_kmh"):
        value = {"device_id": "d", name: 10.5}
        assert quick(learnt(value), value, arrival) == [plain(value, arrival)]


@pytest.mark.parametrize("attributes", [{}, {"fuel": 61}, {"fuel": 61.5, "on": True, "door": None, "tag": "ä"}, None])
def test_own_attributes(attributes: dict[str, Any] | None) -> None:
    value = {"device_id": "d", "attributes": attributes}
    assert quick(learnt(value), value) == [plain(value)]


def test_an_attribute_that_is_null_is_kept_and_one_that_is_missing_is_not() -> None:
    found = learnt({"device_id": "d", "a": 1, "b": 2})
    [sent] = quick(found, {"device_id": "d", "b": None}) or []
    assert sent.record.attributes == '{"b":null}'


# What it leaves to the plain way -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"device_id": None},
        {"device_id": " "},
        {"device_id": "a\0"},
        {"device_id": "d" * 256},
        {"lat": 90.1},
        {"lat": "53.4"},
        {"lon": -180.5},
        {"speed": True},
        {"time": "yesterday"},
        {"time": "1999-12-31T23:59:59Z"},
        {"time": "2026-11-26T05:00:00Z"},
        {"time": NOW_US},
        {"location": "a\0"},
        {"fuel": [1]},
        {"fuel": {"left": 1}},
        {"lng": -2.9},
        {"other": 1},
        {"attributes": {"x": 1}},
    ],
    ids=json.dumps,
)
def test_what_is_wrong_or_unusual(change: dict[str, Any]) -> None:
    assert quick(learnt(USUAL), USUAL | change) is None
    assert quick(learnt(USUAL), [USUAL, USUAL | change]) is None


@pytest.mark.parametrize("name", ["lat", "speed", "time", "fuel"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_numbers_that_are_not_finite(name: str, number: float) -> None:
    data = msgpack.packb(USUAL | {name: number})
    assert learnt(USUAL).msgpack(data, "tcp", "json", ARRIVAL) is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[{}]", b"7", b"null", b'{"device_id":"d"}{', b'{"device_id":"\xff"}', b"[[]]", b"[" * 5_000]
)
def test_what_is_no_record_at_all(data: bytes) -> None:
    assert learnt(USUAL).json(data, "tcp", "json", ARRIVAL) is None
    assert data == b"" or learnt(USUAL).json_lines(data, "tcp", "json", ARRIVAL) is None


@pytest.mark.parametrize("data", [b"", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91" * 5_000, b"\x91\xc1"])
def test_msgpack_that_is_no_record(data: bytes) -> None:
    assert learnt(USUAL).msgpack(data, "tcp", "json", ARRIVAL) is None


def test_attributes_beyond_their_bytes() -> None:
    arrival = ARRIVAL._replace(max_record_bytes=20)
    value = {"device_id": "d", "note": "x" * 20}
    assert quick(learnt(value), value, arrival) is None


@pytest.mark.parametrize(
    "names",
    [
        ("lat",),
        ("device_id", "lat", "latitude"),
        ("device_id", "attributes", "fuel"),
        ("device_id", *map(str, range(MAX_NAMES))),
    ],
    ids=["no device", "two names", "both kinds of attributes", "too many"],
)
def test_names_without_a_shape(names: tuple[str, ...]) -> None:
    assert not learnt(dict.fromkeys(names, 1)).any


# What is learnt ----------------------------------------------------------------------------------------


def test_a_shape_is_made_once_enough_was_read() -> None:
    found = Shapes()
    found.learn([USUAL] * (LEARN_RECORDS - 1))
    assert not found.any
    found.learn([USUAL])
    assert found.any


def test_a_sender_that_never_sends_the_same_names_costs_no_shape() -> None:
    found = Shapes()
    for number in range(3 * LEARN_RECORDS):
        found.learn([{"device_id": "d", f"x{number}": 1}])
    assert not found.any


def test_another_sender_of_known_names_needs_not_learn_them() -> None:
    learnt(USUAL)
    assert quick(Shapes(), USUAL) == [plain(USUAL)]


def test_many_senders_of_few_records_learn_together() -> None:
    for _ in range(LEARN_RECORDS):
        Shapes().learn([USUAL])
    assert Shapes().any


def test_a_sender_of_fewer_names_has_the_shape_of_more() -> None:
    learnt(USUAL)
    value = {"lat": 1.5, "device_id": "d"}
    for other in ({"device_id": "a", f"x{number}": 1} for number in range(MAX_TRIED)):
        learnt(other)  # so that a new sender is thought to use these
    found = Shapes()
    assert quick(found, value) is None
    found.learn([value])
    assert quick(found, value) == [plain(value)]


@pytest.mark.parametrize("unit", ["kmh", "ms"])
@pytest.mark.parametrize("change", [str.upper, str.title])
def test_names_in_another_case_have_a_shape_too(change: Callable[[str], str], unit: str) -> None:
    value = {change(name): item for name, item in USUAL.items()}
    arrival = ARRIVAL._replace(speed_unit=unit)
    expected = plain(value, arrival)
    assert (expected.record.latitude, expected.record.timestamp_us) == (53.4, plain(USUAL).record.timestamp_us)
    assert json.loads(expected.record.attributes or "") == {change("ignition"): True, change("fuel"): 61}
    for values in ([value], [value] * 20):
        assert quick(learnt(value), values, arrival) == [expected] * len(values)


def test_names_of_both_cases_never_share_a_shape() -> None:
    found = learnt(USUAL, {**USUAL, "Lat": 1})
    assert quick(found, {**USUAL, "Lat": 1}) is None, "the plain way refuses it"


def test_names_add_up() -> None:
    found = learnt(USUAL)
    found.learn([{"device_id": "d", "door": 1}], LEARN_RECORDS)
    value = USUAL | {"door": 1}
    assert quick(found, [USUAL, value]) == [plain(USUAL), plain(value)]


def test_senders_of_different_names_may_share_what_is_learnt() -> None:
    other = {"device_id": "e", "latitude": 1.5}
    found = learnt(USUAL)
    found.learn([other], LEARN_RECORDS)
    for value in (USUAL, other, USUAL, other):
        assert quick(found, value) == [plain(value)]


def test_shapes_are_bounded() -> None:
    found = Shapes()
    for number in range(2 * MAX_KEPT):
        found.learn([{"device_id": "d", "lat": 1, f"x{number}": 1}], LEARN_RECORDS)
        found.learn([{"device_id": "d", "latitude": 1, f"x{number}": 1}], LEARN_RECORDS)
    assert len(found._shapes) == MAX_SHAPES
    assert len(typed_decoder._known) == MAX_KEPT
    for number in range(2 * MAX_KEPT):
        Shapes().learn([{"device_id": "d", f"y{number}": 1}])
    assert len(typed_decoder._counts) == MAX_KEPT


# Any record ------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.floats(-200, 200), st.integers(10**9, 2 * 10**12))
texts = st.one_of(
    st.text(max_size=20), st.floats(-200, 200).map(str), st.datetimes().map(lambda at: at.isoformat() + "Z")
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
inner = st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(texts, scalars, max_size=3))
objects = st.dictionaries(
    st.one_of(st.sampled_from(sorted(NAMES)), st.sampled_from(["a", "b", "ä", "", "Lat", "TIME", "Speed", "A"])),
    inner,
    max_size=8,
)
devices = st.one_of(st.text(max_size=5), st.integers(-5, 5))


def same(one: Sent, other: Sent) -> bool:
    """The same but for the order of attributes."""
    return one.device_id == other.device_id and _parsed(one.record) == _parsed(other.record)


def _parsed(record: Record) -> tuple[object, ...]:
    *fields, attributes = msgspec.structs.astuple(record)
    return (*fields, attributes and json.loads(attributes))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@hypothesis_settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(devices, objects).map(lambda found: {"device_id": found[0], **found[1]}), min_size=1, max_size=3
    ),
    st.sampled_from([_json, msgpack.packb]),
)
def test_what_is_taken_is_what_the_plain_way_takes(values: list[dict[str, Any]], write: Callable[[Any], bytes]) -> None:
    found = learnt(*values)
    data = write(values)
    taken = (found.msgpack if write is msgpack.packb else found.json)(data, "tcp", "json", ARRIVAL)
    try:
        expected = [plain(value) for value in values]
    except RecordError:
        assert taken is None
        return
    assert taken is None or all(map(same, taken, expected))


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.datetimes(),
    st.sampled_from(["T", " ", "t", "x"]),
    st.sampled_from(["Z", "z", "+00:00", "+03:00", ""]),
    st.integers(0, 27),
)
def test_a_usual_time_is_what_any_time_is(at: Any, between: str, zone: str, cut: int) -> None:
    """`iso_us` looks at three lengths first: a blank behind, which ends that, must change nothing."""
    for text in (at.isoformat(between) + zone, (at.isoformat(between, "milliseconds") + zone)[:cut]):
        value = {"device_id": "d", "time": text}
        try:
            expected = plain({"device_id": "d", "time": f"{text} "})
        except RecordError:
            expected = None
        taken = quick(learnt(value), value)
        assert taken is None or taken == [expected]
