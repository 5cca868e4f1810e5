"""Bodies in each form: the same records from all, errors in their places, bounds on what they cost."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.http.record_body import FORMS, JSON, MSGPACK, NDJSON, Batch, Form, Unreadable, form_of, read_batch
from telemetry.codec.record_parser import Arrival
from telemetry.model.errors import SyntaxFault, TooLarge
from telemetry.model.record import Sent, decode, encode
from tests.collector.conftest import NOW_US

ARRIVAL = Arrival(NOW_US)
GOOD: dict[str, Any] = {"device_id": "d", "altitude": 1}


def batch_of(form: Form, body: bytes, max_records: int = 1_000) -> Batch:
    """All that can be taken of a body, and all else by its place."""
    return read_batch(form, body, max_records, ARRIVAL, 1_000)


def records_of(form: Form, body: bytes) -> list[Sent]:
    batch = batch_of(form, body)
    assert not batch.refused, batch.errors
    return batch.records


def reasons(form: Form, body: bytes) -> list[tuple[int, int | None, str]]:
    """Place, line and reason of each record that can't be taken."""
    return [(one.place, one.line, str(one.error)) for one in batch_of(form, body).errors]


# One set of records, whatever the form ---------------------------------------------------------------

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.fixed_dictionaries(
    {"device_id": st.text("abcü ", min_size=1)},
    optional={
        "lat": st.floats(-90, 90),
        "timestamp": st.integers(1_600_000_000, 1_700_000_000) | st.just("2026-01-24T10:25:00Z"),
        "speed": st.floats(0, 100) | st.integers(0, 9) | st.just("5.5"),
        "attributes": st.dictionaries(st.text(max_size=3), values, max_size=3),
        "x": values,
    },
)
WRITERS: dict[str, tuple[Form, Callable[[list[Any]], bytes]]] = {
    "array": (JSON, lambda found: json.dumps(found).encode()),
    "lines": (NDJSON, lambda found: b"".join(json.dumps(one).encode() + b"\n" for one in found)),
    "lines of Windows": (NDJSON, lambda found: b"\r\n\r\n".join(json.dumps(one).encode() for one in found)),
    "msgpack array": (MSGPACK, lambda found: msgpack.packb(found)),
    "msgpack maps": (MSGPACK, lambda found: b"".join(map(msgpack.packb, found))),
    "msgpack arrays": (MSGPACK, lambda found: msgpack.packb(found[:1]) + msgpack.packb(found[1:])),
}


@hypothesis_settings(deadline=None)
@given(st.lists(objects, max_size=5))
def test_the_same_records_in_every_form(found: list[Any]) -> None:
    results = [batch_of(form, write(found)) for form, write in WRITERS.values()]
    for one in results:
        assert (one.records, one.refused) == (results[0].records, results[0].refused)


@pytest.mark.parametrize("form", [JSON, MSGPACK])
def test_one_record_needs_no_array(form: Form) -> None:
    body = json.dumps(GOOD).encode() if form is JSON else msgpack.packb(GOOD)
    assert [one.device_id for one in records_of(form, body)] == ["d"]


@pytest.mark.parametrize("form", [NDJSON, MSGPACK])
def test_an_empty_body_has_no_records(form: Form) -> None:
    assert records_of(form, b"") == []


def test_a_body_is_known_by_its_name() -> None:
    for kind, form in FORMS.items():
        assert form_of(kind.upper() + "; charset=utf-8") is form
    assert form_of("application/vnd.x+json") is JSON
    assert form_of("application/x-ndjson") is NDJSON
    assert form_of("application/vnd.msgpack") is MSGPACK
    assert form_of("text/csv") is None


# NDJSON ----------------------------------------------------------------------------------------------


def test_lines_are_counted_and_blank_ones_are_none() -> None:
    body = b'\r\n \t\n{"device_id":"a"}\r\n\n  {"device_id":"b"} \n5\n{"device_id":\n\n{"device_id":"c"}x'
    assert [one.device_id for one in batch_of(NDJSON, body).records] == ["a", "b"]
    assert reasons(NDJSON, body) == [
        (2, 6, "a record must be an object, not a number"),
        (3, 7, "cut short"),
        (4, 9, "trailing characters at byte 17"),
    ]


def test_a_line_that_is_not_json_is_shown() -> None:
    [refused] = batch_of(NDJSON, b"x\xff" + b"y" * 1_000).errors
    assert isinstance(refused.error, Unreadable)
    assert refused.error.value == "x\ufffd" + "y" * 98


def test_a_long_body_of_blanks_is_read_at_once() -> None:
    assert records_of(NDJSON, (b" " * 1_000 + b"\n") * 8_000) == []
    assert records_of(NDJSON, b"\n" * 8_000_000) == []


def test_containers_are_bounded_line_by_line() -> None:
    line = b'{"device_id":"d","a":[' + b",".join([b"[]"] * 500) + b"]}\n"
    assert len(records_of(NDJSON, line * 100)) == 100
    assert read_batch(NDJSON, line, 10, ARRIVAL, 1).errors[0].error.reason == "more than 80 objects and arrays"


# msgpack ---------------------------------------------------------------------------------------------


def test_a_moment_may_be_a_timestamp() -> None:
    moment = datetime(2026, 1, 24, 10, 25, 0, 250_000, tzinfo=UTC)
    body = msgpack.packb({"device_id": "d", "time": moment, "was": moment}, datetime=True)
    [sent] = records_of(MSGPACK, body)
    assert sent.record.timestamp_us == moment.timestamp() * 1_000_000
    assert json.loads(sent.record.attributes or "") == {"was": "2026-01-24T10:25:00.250000Z"}


def test_bytes_that_are_text_are_text() -> None:
    [sent] = records_of(MSGPACK, msgpack.packb({"device_id": b"d\xc3\xbc", "note": [b"a"]}))
    assert sent.device_id == "dü"
    assert json.loads(sent.record.attributes or "") == {"note": ["a"]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"device_id": b"\xff"}, "device_id: must be UTF-8 text, not other bytes"),
        ({"device_id": "d", "lat": msgpack.ExtType(5, b"x")}, "latitude: must not be of an extension type"),
        ({"device_id": "d", "x": [msgpack.ExtType(5, b"x")]}, "x: must not be of an extension type"),
        ({"device_id": "d", 1: 2}, "names must be text, not a number"),
        ({"device_id": "d", "x": {b"y": 1}}, "names must be text, not bytes"),
        ({"device_id": "d", "lat": math.nan}, "latitude: must be a finite number"),
        ({"device_id": "d", "x": math.inf}, "attributes: must not hold a number that is not finite"),
        ([GOOD], "a record must be an object, not an array"),
        (b"x", "a record must be an object, not text"),
    ],
)
def test_what_json_has_not_is_refused_in_its_place(value: object, reason: str) -> None:
    body = msgpack.packb([GOOD, value, GOOD])
    assert len(batch_of(MSGPACK, body).records) == 2
    assert reasons(MSGPACK, body) == [(1, None, reason)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x81\xa1\xff\x01", "not UTF-8: invalid start byte, in the record at byte 1"),
        (b"\x81\x80\x01", "map keys must be hashable (byte 3), in the record at byte 1"),
        (b"\xd7\xff" + b"\xff" * 8, "Invalid MessagePack timestamp: nanoseconds out of range, in the record at byte 1"),
    ],
)
def test_one_record_that_is_bad_msgpack_costs_only_itself(value: bytes, reason: str) -> None:
    body = b"\x92" + value + msgpack.packb(GOOD)
    batch = batch_of(MSGPACK, body)
    assert (len(batch.records), batch.refused) == (1, [0])
    assert isinstance(batch.errors[0].error, Unreadable)
    assert batch.errors[0].error.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x92" + msgpack.packb(GOOD), "cut short"),
        (msgpack.packb([GOOD, GOOD])[:-1], "cut short"),
        (b"\xdd\xff\xff\xff\xff", "cut short"),
        (b"\xdc\xff", "cut short"),
        (b"\x81\xc1", "a byte that cannot begin a value at byte 1"),
        (msgpack.packb(GOOD) + b"\xc1", "a byte that cannot begin a value at byte 23"),
        (b"\x91" * 2_000, "nested too deeply at byte 1025"),
    ],
)
def test_what_is_no_msgpack(body: bytes, reason: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        batch_of(MSGPACK, body)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "body",
    [
        msgpack.packb({"device_id": "d", "x": [[]] * 2**20}),
        msgpack.packb({"device_id": "d", "x": [{}] * 2**20}),
        b"\xdd\x00\x80\x00\x00" * 1_000,
        b"\xdf\x00\x80\x00\x00\xa1a" * 1_000,
        b"\x91" + b"\xdd\x00\x80\x00\x00" * 1_000,
    ],
)
def test_containers_of_msgpack_are_bounded(body: bytes) -> None:
    tracemalloc.start()
    try:
        batch = read_batch(MSGPACK, body, 1_000, ARRIVAL, 1)
        assert "more than 8000 maps and arrays" in batch.errors[0].error.reason
    except SyntaxFault:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(body) + 2**20


def test_bytes_that_look_like_containers_are_none() -> None:
    [sent] = records_of(MSGPACK, msgpack.packb({"device_id": "d", "x": "ü" * 10_000}))
    assert len(sent.record.attributes or "") > 10_000


# Any -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [JSON, NDJSON, MSGPACK])
def test_one_record_more_than_may_be(form: Form) -> None:
    write = {JSON: 0, NDJSON: 1, MSGPACK: 3}
    body = list(WRITERS.values())[write[form]][1]([GOOD] * 11)
    assert len(batch_of(form, body, 11).records) == 11
    with pytest.raises(TooLarge, match="a request may hold 10 records"):
        batch_of(form, body, 10)


def test_the_first_bad_record_ends_it_if_none_may_be_left_out() -> None:
    batch = read_batch(JSON, json.dumps([GOOD, {}, GOOD, {}]).encode(), 10, ARRIVAL, 0)
    assert (batch.refused, len(batch.errors), len(batch.records)) == ([1], 1, 1)


def test_all_bad_records_are_counted_and_the_first_described() -> None:
    batch = read_batch(JSON, json.dumps([{}, GOOD] * 5).encode(), 10, ARRIVAL, 3)
    assert (batch.refused, [one.place for one in batch.errors]) == ([0, 2, 4, 6, 8], [0, 2, 4])
    assert len(batch.records) == 5


pieces = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\n",
        b'"device_id":"d"',
        b"\x81\xa9device_id\xa1d",
        b"\x92",
        b"\xdd",
        b"\xc7",
        b"\xff",
    ]
)


@pytest.mark.parametrize("form", [JSON, NDJSON, MSGPACK])
@given(body=st.binary(max_size=100) | st.lists(pieces, max_size=12).map(b"".join))
def test_any_bytes_are_records_or_faults(form: Form, body: bytes) -> None:
    try:
        batch = batch_of(form, body)
    except SyntaxFault:
        return
    assert len(batch.refused) == len(batch.errors)


@given(st.lists(objects, min_size=1, max_size=3), st.data())
def test_good_msgpack_with_one_byte_changed(found: list[Any], data: st.DataObject) -> None:
    body = bytearray(msgpack.packb(found))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    try:
        batch = batch_of(MSGPACK, bytes(body))
    except SyntaxFault:
        return
    assert len(batch.refused) == len(batch.errors)
    for sent in batch.records:
        assert decode(encode(sent.record)) == sent.record


def test_an_extension_whose_length_overflows() -> None:
    """msgpack's own library takes it for five bytes."""
    assert batch_of(MSGPACK, struct.pack(">BIb", 0xC9, 2**32 - 1, 1)).records == []
