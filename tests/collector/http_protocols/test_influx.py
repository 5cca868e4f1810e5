"""InfluxDB's lines: names, kinds of values, escapes, precisions, and what of a request can't be taken."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.http_protocols.influx import parse, ping, query, read
from collector.http_protocols.protocol import NotOurs, Post
from telemetry.model.errors import RecordError
from tests.collector.http_protocols.posting import HTTP, only, told
from tests.collector.protocols.three_ways import NOW_US


def lines(*texts: str, precision: str = "") -> Post:
    return Post([("precision", precision)] if precision else [], {}, "\n".join(texts).encode())


def test_a_position() -> None:
    found = told(read, lines("gps,device_id=v1,region=eu lat=41.5,lon=28.5,speed=36,fuel=80i 1772366400123456789"))
    assert (found.status, found.body) == (204, b"")
    device, record, attributes = only(found)
    assert (device, record.source, record.timestamp_us) == ("v1", "influx", 1_772_366_400_123_456)
    assert (record.latitude, record.longitude, record.speed_kmh) == (41.5, 28.5, 36)
    assert attributes == {"region": "eu", "fuel": 80, "measurement": "gps"}


def test_kinds_of_values() -> None:
    line = r'm,host=h a=1,b=-2i,c=3u,d=1e-3,e=t,f=False,g="x \"y\", z=1 \\ ",h=TRUE'
    _, record, attributes = only(told(read, lines(line)))
    values = {"a": 1.0, "b": -2, "c": 3, "d": 0.001, "e": True, "f": False, "g": 'x "y", z=1 \\ ', "h": True}
    assert attributes == {**values, "measurement": "m"}
    assert record.timestamp_us == NOW_US


def test_escapes_of_names_and_tags() -> None:
    point = parse(r"my\ m\,1,host=a\=b\,c,ta\ g=x field\ 1=1 5")
    assert point == ("my m,1", {"host": "a=b,c", "ta g": "x"}, {"field 1": 1.0}, 5)


@pytest.mark.parametrize(
    ("precision", "stamp"),
    [
        ("", 1_772_366_400 * 10**9),
        ("ns", 1_772_366_400 * 10**9),
        ("us", 1_772_366_400 * 10**6),
        ("u", 1_772_366_400 * 10**6),
        ("ms", 1_772_366_400_000),
        ("s", 1_772_366_400),
        ("m", 1_772_366_400 // 60),
        ("h", 1_772_366_400 // 3_600),
    ],
)
def test_precisions(precision: str, stamp: int) -> None:
    _, record, _ = only(told(read, lines(f"m,host=h a=1 {stamp}", precision=precision)))
    assert record.timestamp_us == 1_772_366_400_000_000


@pytest.mark.parametrize(
    ("tags", "chosen", "device"),
    [("host=h,device_id=d", "", "d"), ("host=h", "", "h"), ("host=h,imei=5", "imei", "5")],
)
def test_a_tag_names_the_device(tags: str, chosen: str, device: str) -> None:
    assert only(told(read, lines(f"m,{tags} a=1"), HTTP._replace(device_tag=chosen)))[0] == device


def test_names_in_another_case() -> None:
    device, record, attributes = only(told(read, lines("m,Host=h Lat=1.5,LON=2.5,Speed=36,Fuel=5")))
    assert (device, record.latitude, record.longitude, record.speed_kmh) == ("h", 1.5, 2.5, 36)
    assert attributes == {"Fuel": 5, "measurement": "m"}


def test_comments_empty_lines_and_a_line_break_inside_quotes() -> None:
    found = told(read, lines("# telegraf", "", '  m,host=h a="x', 'y" 1772366400000000000', "m,host=h b=1"))
    assert [json.loads(sent.record.attributes or "")["measurement"] for sent in found.records] == ["m", "m"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("m a=1", "no tag says it"),
        ("m,host=h", "fields"),
        ("m,host=h a", "needs '='"),
        ("m,host=h a=", "has no value"),
        ("m,host=h a=1x", "is no number"),
        ("m,host=h a=1 soon", "must be a whole number"),
        ("m,host=h a=1 5", "2000-01-01"),
        ("m,host=h host=1", "is a tag and a field"),
        ("m,host=h lat=91,lon=1", "latitude"),
        (",host=h a=1", "measurement"),
    ],
)
def test_a_bad_line_is_set_aside_the_others_are_stored_and_the_answer_says_so(line: str, why: str) -> None:
    found = told(read, lines("m,host=h a=1", line, "m,host=h a=2"))
    assert (found.status, len(found.records)) == (400, 2)
    (aside,) = found.aside
    assert aside.raw == line.encode()
    assert why in aside.reason
    answer = json.loads(found.body)
    assert answer["code"] == "invalid"
    assert answer["message"].startswith("partial write: 1 of 3 lines can't be taken: line 2: ")


def test_a_precision_that_is_none() -> None:
    with pytest.raises(NotOurs):
        told(read, lines("m,host=h a=1", precision="weeks"))


names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).filter(lambda text: "\\" not in text)


def escaped(text: str) -> str:
    return re.sub(r"([,= \"])", r"\\\1", text)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(deadline=None)
@given(names, st.dictionaries(names, names), st.dictionaries(names, st.text(), min_size=1), st.integers(0, 10**19))
def test_whatever_is_written_is_read(measurement: str, tags: dict[str, str], fields: dict[str, str], at: int) -> None:
    head = ",".join([escaped(measurement), *(f"{escaped(k)}={escaped(v)}" for k, v in tags.items())])
    rest = ",".join(f"{escaped(k)}={quoted(v)}" for k, v in fields.items())
    assert parse(f"{head} {rest} {at}") == (measurement, tags, fields, at)


@settings(deadline=None)
@given(st.text())
def test_any_line_is_a_point_or_an_error(text: str) -> None:
    try:
        point = parse(text)
    except RecordError:
        return
    assert point.measurement
    assert point.fields
    assert all(isinstance(value, float | int | str | bool) for value in point.fields.values())


def test_a_quote_that_never_ends_costs_no_time() -> None:
    body = b'm,host=h a="' + b"x\\" * 500_000
    found = told(read, Post([], {}, body))
    assert (found.status, found.records) == (400, [])


@pytest.mark.parametrize(
    "post",
    [
        Post([("q", 'CREATE DATABASE "telegraf"')], {}, b""),
        Post([], {"content-type": "application/x-www-form-urlencoded"}, b"q=create+database+x"),
    ],
)
def test_a_database_is_there_as_soon_as_it_is_asked_for(post: Post) -> None:
    found = told(query, post)
    assert (found.status, json.loads(found.body)) == (200, {"results": [{"statement_id": 0}]})


@pytest.mark.parametrize("text", ["SELECT * FROM cpu", "", "DROP DATABASE x", "recreate database x"])
def test_other_questions_are_not_answered(text: str) -> None:
    with pytest.raises(NotOurs, match="only CREATE DATABASE"):
        told(query, Post([("q", text)], {}, b""))


def test_somebody_looks_whether_it_is_there() -> None:
    assert told(ping, Post([], {}, b"")).status == 204
