"""The older service's main routes over real sockets: what its clients send and get back, byte for byte."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from telemetry.codec.record_parser import iso_us
from telemetry.model.record import Sent
from telemetry.model.utc import iso
from tests.api.conftest import Box, box_on, record, segment
from tests.conftest import RedisServer

AT_US = 1_769_250_300_000_000
AT = "2026-01-24T10:25:00Z"

POST = "/tracking/data/"
JSON = "application/json"
REQUIRED = '["This field is required."]'
ALL_REQUIRED = f'[{{"device_id":{REQUIRED},"location":{REQUIRED},"speed":{REQUIRED}}}]'
PARSE_ERROR = '{"detail":"JSON parse error - '
BAD_TIME = (
    "Datetime has wrong format. Use one of these formats instead: YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
)


def post(box: Box, body: bytes | str, kind: str | None = JSON, path: str = POST) -> httpx.Response:
    content = body.encode() if isinstance(body, str) else body
    return box.http.post(path, content=content, headers={"Content-Type": kind} if kind else {})


def latest(box: Box, device_id: str, kind: str = "tracking") -> httpx.Response:
    return box.http.get(f"/{kind}/data/latest/{segment(device_id)}/")


def assert_answer(answer: httpx.Response, status: int, body: str, allow: str) -> None:
    """Check status, body and all headers that the older service's answers share."""
    assert answer.status_code == status, answer.text
    assert answer.text == body
    headers = answer.headers
    assert headers["content-type"] == JSON, "without charset"
    assert headers["allow"] == allow
    assert headers["vary"] == "Accept, Cookie"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["content-length"] == str(len(answer.content))
    assert headers.get("connection", "keep-alive") == "keep-alive"


def assert_posted(answer: httpx.Response, status: int, body: str) -> None:
    assert_answer(answer, status, body, "POST, OPTIONS")


def assert_latest(answer: httpx.Response, status: int, body: str) -> None:
    assert_answer(answer, status, body, "GET, HEAD, OPTIONS")


def echo(*records: str) -> str:
    return f'{{"message":"Data received","data":[{",".join(records)}]}}'


def taken(device_id: str, **more: object) -> str:
    """A record that is taken, as a client sends it."""
    return json.dumps({"device_id": device_id, "location": "x", "speed": 1, **more})


# POST: what is taken ---------------------------------------------------------------------------------


class Case(NamedTuple):
    """A body and its answer."""

    sent: str
    answer: str


ONE = '{"device_id":"123","location":"Antalya","speed":60.0}'

TAKEN = {
    "one object": Case('{"device_id": "123", "location": "Antalya", "speed": 60}', echo(ONE)),
    "a list of one": Case('[{"device_id": "123", "location": "Antalya", "speed": 60}]', echo(ONE)),
    "the tests' object": Case('{"device_id":"123","location":"Antalya","speed":"50.0"}', echo(ONE.replace("60", "50"))),
    "keys in another order": Case('{"speed":60,"location":"Antalya","device_id":"123"}', echo(ONE)),
    "white space around": Case(' \r\n{"device_id":"123","location":"Antalya","speed":60}\n ', echo(ONE)),
    "an empty list": Case("[]", echo()),
    "a number for a text": Case(
        '{"device_id":123,"location":-2.50,"speed":1}', echo('{"device_id":"123","location":"-2.5","speed":1.0}')
    ),
    "blanks around a text": Case(
        '{"device_id":"  a b ","location":"\\t x\\n y ","speed":1}',
        echo('{"device_id":"a b","location":"x\\n y","speed":1.0}'),
    ),
    "255 characters": Case(
        f'{{"device_id":"{"ü" * 255}","location":"{"x" * 255}","speed":1}}',
        echo(f'{{"device_id":"{"ü" * 255}","location":"{"x" * 255}","speed":1.0}}'),
    ),
    "unicode and emoji unescaped": Case(
        '{"device_id":"\\u00fc","location":"😀 \\"q\\" \\\\ /","speed":1}',
        echo('{"device_id":"ü","location":"😀 \\"q\\" \\\\ /","speed":1.0}'),
    ),
    "an emoji as a pair of escapes": Case(
        '{"device_id":"a","location":"\\ud83d\\ude00","speed":1}', echo('{"device_id":"a","location":"😀","speed":1.0}')
    ),
    "others are dropped": Case(
        '{"id":7,"device_id":"123","fuel":"low","location":"Antalya","speed":60,"":null}', echo(ONE)
    ),
    "others with names that Whimbrel knows": Case(
        '{"device_id":"123","location":"Antalya","speed":60,"timestamp":"2026-01-24T10:25:00Z","time":"12:30"}',
        echo(ONE.replace("60.0", f'60.0,"timestamp":"{AT}"')),
    ),
    "of a key twice the last": Case('{"device_id":"x","location":"Antalya","speed":60,"device_id":"123"}', echo(ONE)),
    "several in their order": Case(
        f"[{taken('b')},{taken('a')},{taken('b')}]",
        echo(*(f'{{"device_id":"{name}","location":"x","speed":1.0}}' for name in "bab")),
    ),
    "coordinates for a location": Case(
        '{"device_id":"a","location":"123.456,78.901","speed":1}',
        echo('{"device_id":"a","location":"123.456,78.901","speed":1.0}'),
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_is_echoed_as_it_was_read(box: Box, name: str) -> None:
    sent, expected = TAKEN[name]
    assert_posted(post(box, sent), 202, expected)


@pytest.mark.parametrize(
    ("sent", "echoed", "stored"),
    [
        ("60", "60.0", "60.00"),
        ('"60"', "60.0", "60.00"),
        ('" 7 "', "7.0", "7.00"),
        ('"1e2"', "100.0", "100.00"),
        ("1e2", "100.0", "100.00"),
        ("true", "1.0", "1.00"),
        ("false", "0.0", "0.00"),
        ("-5", "-5.0", "-5.00"),
        ("0", "0.0", "0.00"),
        ("1.005", "1.005", "1.01"),
        ("-0.125", "-0.125", "-0.13"),
        ("0.005", "0.005", "0.01"),
        ("55.555555", "55.555555", "55.56"),
        ("99999999.99", "99999999.99", "99999999.99"),
        ("123456789.125", "123456789.125", "123456789.13"),
        ("1e16", "1e+16", "10000000000000000.00"),
        ("1e-7", "1e-07", "0.00"),
        ("1e300", "1e+300", f"1{'0' * 300}.00"),
    ],
)
def test_speed_is_echoed_unrounded_and_shown_with_two_decimals(box: Box, sent: str, echoed: str, stored: str) -> None:
    device = f"speed {sent}"
    answer = post(box, f'{{"device_id":{json.dumps(device)},"location":"x","speed":{sent}}}')
    name = json.dumps(device)
    assert_posted(answer, 202, echo(f'{{"device_id":{name},"location":"x","speed":{echoed}}}'))
    found = latest(box, device)
    assert f'"speed":"{stored}"}}' in found.text


TIMES = [
    *((text, "2024-11-12T10:25:00Z") for text in ("2024-11-12T10:25:00Z", "2024-11-12T10:25:00", "2024-11-12 10:25")),
    ("20241112T102500Z", "2024-11-12T10:25:00Z"),
    *((f"2024-11-12T10:25:00{zone}", "2024-11-12T07:25:00Z") for zone in ("+03:00", "+0300", "+03")),
    ("2024-11-12T10:25:00.5Z", "2024-11-12T10:25:00.500000Z"),
    ("2024-11-12T10:25:00,5Z", "2024-11-12T10:25:00.500000Z"),
    ("2024-11-12T10:25:00.123456789Z", "2024-11-12T10:25:00.123456Z"),
    ("2024-11-12", "2024-11-12T00:00:00Z"),
    ("2024-W46-2", "2024-11-12T00:00:00Z"),
]


@pytest.mark.parametrize(("sent", "shown"), TIMES)
def test_a_timestamp_is_echoed_and_stored_in_utc(box: Box, sent: str, shown: str) -> None:
    device = f"time {sent}"
    expected = f'{{"device_id":"{device}","location":"x","speed":1.0,"timestamp":"{shown}"}}'
    assert_posted(post(box, taken(device, timestamp=sent)), 202, echo(expected))
    assert latest(box, device).json()["timestamp"] == shown, "A3: it is kept"
    newest = box.http.get(f"/v1/devices/{segment(device)}/latest").json()
    assert newest["timestamp"] == iso(iso_us(shown))


def test_without_a_timestamp_it_is_the_time_of_arrival(box: Box) -> None:
    before_s = box.client.time()[0]
    assert post(box, taken("now")).status_code == 202
    found = box.http.get("/v1/devices/now/latest").json()
    assert latest(box, "now").json()["timestamp"] == found["timestamp"]
    assert found["timestamp"][:15] == found["received_at"][:15] or before_s % 600 > 595


# POST: what is refused -------------------------------------------------------------------------------


def field(name: str, *sentences: str) -> str:
    return f"[{json.dumps({name: list(sentences)}, ensure_ascii=False, separators=(',', ':'))}]"


def bad(**fields: object) -> str:
    return json.dumps({"device_id": "bad", "location": "x", "speed": 1, **fields})


NULL, BLANK, NO_TEXT = "This field may not be null.", "This field may not be blank.", "Not a valid string."
NO_NUMBER, TOO_LONG = "A valid number is required.", "Ensure this field has no more than 255 characters."
NUL, RANGE = "Null characters are not allowed.", "Datetime value out of range."
NO_RECORD = '[{{"non_field_errors":["Invalid data. Expected a dictionary, but got {}."]}}]'

WRONG_SPEEDS: list[object] = ["6,5", "", "fast", [], {}, "NaN", "inf", "-Infinity"]
WRONG_TEXTS: list[object] = [True, [], {}, ["x"]]
WRONG_TIMES: list[object] = [
    *(1731407100, "1731407100", "", "yesterday", "Tue, 12 Nov 2024 10:25:00 GMT", "2024-11-12t10:25:00z"),
    *("2024-02-30T00:00:00Z", "2024-11-12T24:00:00Z", "2024-11-12T24:00", True, [], {}, 1.5),
]
OUT_OF_RANGE = [
    *("0001-01-01T00:00:00+03:00", "9999-12-31T23:59:59-03:00", "1999-12-31T23:59:59Z", "2199-12-31T23:59:59Z"),
]

REFUSED = {
    "{}": Case("{}", ALL_REQUIRED),
    "[{}]": Case("[{}]", ALL_REQUIRED),
    "an empty body": Case("", ALL_REQUIRED),
    "a good one, then a bad one": Case(
        f'[{taken("good")},{{"device_id":"b"}}]', f'[{{}},{{"location":{REQUIRED},"speed":{REQUIRED}}}]'
    ),
    "a bad one, then a good one": Case(f"[{{}},{taken('good')}]", f"{ALL_REQUIRED[:-1]},{{}}]"),
    **{f"null {name}": Case(bad(**{name: None}), field(name, NULL)) for name in ("device_id", "location", "speed")},
    "null timestamp": Case(bad(timestamp=None), field("timestamp", NULL)),
    "empty": Case(bad(location=""), field("location", BLANK)),
    "blank": Case(bad(device_id=" \t\n"), field("device_id", BLANK)),
    **{f"{value} for a text": Case(bad(location=value), field("location", NO_TEXT)) for value in WRONG_TEXTS},
    "256 characters": Case(bad(device_id="x" * 256), field("device_id", TOO_LONG)),
    "256 emojis": Case(bad(location="😀" * 256), field("location", TOO_LONG)),
    "NUL": Case(bad(location="a\0b"), field("location", NUL)),
    "a lone surrogate": Case(
        '{"device_id":"a\\ud83d","location":"x","speed":1}',
        field("device_id", "Surrogate characters are not allowed: U+D83D."),
    ),
    **{f"speed {value!r}": Case(bad(speed=value), field("speed", NO_NUMBER)) for value in WRONG_SPEEDS},
    "speed 1e400": Case('{"device_id":"a","location":"x","speed":1e400}', field("speed", NO_NUMBER)),
    **{f"timestamp {value!r}": Case(bad(timestamp=value), field("timestamp", BAD_TIME)) for value in WRONG_TIMES},
    **{f"timestamp {value}": Case(bad(timestamp=value), field("timestamp", RANGE)) for value in OUT_OF_RANGE},
    "two fields at once": Case(bad(speed=[], location=None), f'[{{"location":["{NULL}"],"speed":["{NO_NUMBER}"]}}]'),
    **{
        f"{sent} for a record": Case(sent, NO_RECORD.format(kind))
        for sent, kind in (("5", "int"), ('"a"', "str"), ("true", "bool"), ("[[]]", "list"), ("1.5", "float"))
    },
    "null for a record": Case("null", '[["This field may not be null."]]'),
    "null in a list": Case(f"[{taken('good')},null]", '[{},["This field may not be null."]]'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_in_its_words(box: Box, name: str) -> None:
    sent, expected = REFUSED[name]
    before = box.shards[0].unsaved()
    assert_posted(post(box, sent), 400, expected)
    assert box.shards[0].unsaved() == before, "one bad record: none is taken"


NOT_JSON: dict[str, tuple[bytes, str]] = {
    "a name without quotes": (
        b"{device_id:1}",
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    "cut short": (b'{"device_id":', "Expecting value: line 1 column 14 (char 13)"),
    "two objects": (
        b'{"device_id":"1","location":"x","speed":1}{}',
        "Extra data: line 1 column 43 (char 42)",
    ),
    "Postman's comment": (
        b'[{"device_id":"1","location":"x","speed":60}]\n// comment',
        "Extra data: line 2 column 1 (char 46)",
    ),
    "a form": (b"device_id=1&location=x", "Expecting value: line 1 column 1 (char 0)"),
    "a blank": (b" ", "Expecting value: line 1 column 2 (char 1)"),
    "a control character": (b'{"a":"\t"}', "Invalid control character at: line 1 column 7 (char 6)"),
    **{
        name: (f'{{"speed":{name}}}'.encode(), f"Out of range float values are not JSON compliant: '{name}'")
        for name in ("NaN", "Infinity", "-Infinity")
    },
    "not UTF-8": (b'{"device_id":"\xff"}', "'utf-8' codec can't decode byte 0xff in position 14: invalid start byte"),
    "a BOM": (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_json_is_said_in_the_words_of_python(box: Box, name: str) -> None:
    sent, sentence = NOT_JSON[name]
    assert_posted(post(box, sent), 400, f'{PARSE_ERROR}{sentence}"}}')


@pytest.mark.parametrize("sent", [b"[" * 100_000, b'{"a":' * 100_000, b'{"speed":' + b"9" * 5_000 + b"}"])
def test_what_python_can_not_read_is_a_parse_error_too(box: Box, sent: bytes) -> None:
    answer = post(box, sent)
    assert answer.status_code == 400
    assert answer.text.startswith(PARSE_ERROR)


# POST: how it may be sent ----------------------------------------------------------------------------


def test_post_without_the_slash_is_taken(box: Box) -> None:
    assert_posted(post(box, taken("no slash"), path="/tracking/data"), 202, echo(
        '{"device_id":"no slash","location":"x","speed":1.0}'
    ))  # fmt: skip
    assert latest(box, "no slash").status_code == 200


def test_a_chunked_body_is_read(box: Box) -> None:
    def pieces() -> Iterator[bytes]:
        for byte in taken("chunked").encode():
            yield bytes([byte])

    answer = box.http.post(POST, content=pieces(), headers={"Content-Type": JSON})
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert_posted(answer, 202, echo('{"device_id":"chunked","location":"x","speed":1.0}'))


def test_content_encoding_is_ignored(box: Box) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    answer = box.http.post(POST, content=taken("encoded").encode(), headers=headers)
    assert_posted(answer, 202, echo('{"device_id":"encoded","location":"x","speed":1.0}'))


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;x=y"])
def test_json_may_have_parameters(box: Box, kind: str) -> None:
    assert post(box, taken("parameters"), kind).status_code == 202


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("text/plain", "text/plain"),
        (None, "text/plain"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("application/xml", "application/xml"),
        ("application/vnd.api+json", "application/vnd.api+json"),
        ("nonsense", "nonsense"),
    ],
)
def test_another_kind_of_body_is_refused_by_its_name(box: Box, kind: str | None, named: str) -> None:
    expected = f'{{"detail":"Unsupported media type \\"{named}\\" in request."}}'
    assert_posted(post(box, taken("kind"), kind), 415, expected)


@pytest.mark.parametrize("kind", [None, JSON, "text/plain", "application/x-www-form-urlencoded"])
def test_an_empty_body_lacks_all_fields_whatever_its_kind(box: Box, kind: str | None) -> None:
    assert_posted(post(box, b"", kind), 400, ALL_REQUIRED)


FORMS = {
    "percent-encoded": "device_id=form+1&location=%C3%BC%20%F0%9F%98%80&speed=7.5",
    "as it is": "device_id=form 1&location=ü 😀&speed=7.5",
    "of a field twice the last": "device_id=x&device_id=form+1&location=%C3%BC+%F0%9F%98%80&speed=7.5",
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("more", ["", "; charset=UTF-8"])
def test_a_form_is_one_record(box: Box, name: str, more: str) -> None:
    answer = post(box, FORMS[name], f"application/x-www-form-urlencoded{more}")
    assert_posted(answer, 202, echo('{"device_id":"form 1","location":"ü 😀","speed":7.5}'))


def test_a_form_in_parts_is_one_record(box: Box) -> None:
    values = {
        "device_id": " parts 😀 ",
        "location": "a\r\nb&c=d",
        "speed": "1e2",
        "timestamp": "2026-01-24T13:25:00+03:00",
    }
    answer = box.http.post(POST, files={name: (None, value.encode()) for name, value in values.items()})
    assert answer.request.headers["content-type"].startswith("multipart/form-data")
    shown = f'{{"device_id":"parts 😀","location":"a\\r\\nb&c=d","speed":100.0,"timestamp":"{AT}"}}'
    assert_posted(answer, 202, echo(shown))
    assert latest(box, "parts 😀").json()["timestamp"] == AT


def test_a_form_that_lacks_fields_is_refused(box: Box) -> None:
    form = "application/x-www-form-urlencoded"
    assert_posted(post(box, "device_id=a&speed=", form), 400,
        f'[{{"location":{REQUIRED},"speed":["{NO_NUMBER}"]}}]')  # fmt: skip
    assert_posted(post(box, taken("json"), form), 400, ALL_REQUIRED)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", taken("json").encode()),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"),
        ("application/x-www-form-urlencoded", b"&".join(b"n%d=1" % n for n in range(2_000))),
    ],
)
def test_a_form_that_can_not_be_read_is_refused(box: Box, kind: str, body: bytes) -> None:
    answer = post(box, body, kind)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == JSON
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert answer.json() == json.loads(ALL_REQUIRED) or list(answer.json()) == ["detail"]


def test_many_records_at_once_are_taken(box: Box) -> None:
    many = [{"device_id": f"many {n % 50}", "location": "x", "speed": n} for n in range(20_000)]
    answer = box.http.post(POST, json=many)
    assert answer.status_code == 202
    assert [one["speed"] for one in answer.json()["data"]] == list(range(20_000))
    assert latest(box, "many 49").json()["speed"] == "19999.00"


def test_a_body_over_the_limit_is_refused(box: Box) -> None:
    answer = post(box, b" " * (8 * 2**20 + 1))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == JSON
    assert list(answer.json()) == ["detail"]


# GET latest ------------------------------------------------------------------------------------------


def test_latest_of_both_sets(box: Box) -> None:
    [web] = box.append(Sent("both", record(AT_US, location="Antalya", speed_kmh=60.0)))
    [other] = box.append(Sent("both", record(AT_US + 52_151_615, "tcp", location="ü", speed_kmh=7.0)))
    shown = f'{{"id":{web.id},"device_id":"both","timestamp":"{AT}","location":"Antalya","speed":"60.00"}}'
    assert_latest(latest(box, "both"), 200, shown)
    shown = '{"device_id":"both","location":"ü","speed":7.0,"timestamp":"2026-01-24T10:25:52.151615Z"}'
    assert_latest(latest(box, "both", "tcp_tracking"), 200, shown)
    assert other.id > web.id


@pytest.mark.parametrize("transport", ["tcp", "udp", "mqtt", "import"])
def test_the_second_set_holds_all_other_transports(box: Box, transport: str) -> None:
    device = f"by {transport}"
    box.append(Sent(device, record(AT_US, transport, location="x", speed_kmh=1.0)))
    assert_latest(latest(box, device), 404, '{"message":"No data found"}')
    assert latest(box, device, "tcp_tracking").json()["location"] == "x"


@pytest.mark.parametrize("kind", ["tracking", "tcp_tracking"])
@pytest.mark.parametrize("device_id", ["nobody", "🐦", "a.b", "'", "no body", "ONE"])
def test_of_an_unknown_device_there_is_no_data(box: Box, kind: str, device_id: str) -> None:
    box.append(Sent("one", record(AT_US)), Sent("one", record(AT_US, "tcp")))
    assert_latest(latest(box, device_id, kind), 404, '{"message":"No data found"}')


@pytest.mark.parametrize(
    "device_id", ["a b", "100%", "%2F", "ü", "😀", "a?b=c&d", "a+b", "o'brien", "..", "a\nb", "x" * 255]
)
def test_the_id_is_one_segment_percent_encoded(box: Box, device_id: str) -> None:
    assert post(box, taken(device_id)).status_code == 202
    found = latest(box, device_id)
    assert found.status_code == 200, found.text
    assert found.json()["device_id"] == device_id
    assert latest(box, device_id, "tcp_tracking").status_code == 404


def test_the_greatest_timestamp_is_the_latest_not_the_last_to_come(box: Box) -> None:
    sent = [taken("order", timestamp=f"2026-01-24T10:25:0{n}Z", location=f"at {n}") for n in (1, 3, 2)]
    assert post(box, f"[{','.join(sent[:2])}]").status_code == 202
    assert post(box, sent[2]).status_code == 202
    assert latest(box, "order").json()["location"] == "at 3"


def test_a_record_without_location_or_speed_is_shown_all_the_same(box: Box) -> None:
    for transport in ("http", "tcp"):
        box.append(Sent("bare", record(AT_US, transport, latitude=36.5, longitude=-30.25)))
        box.append(Sent("nowhere", record(AT_US, transport, fix=False)))
    found = latest(box, "bare").json()
    assert (found["location"], found["speed"]) == ("36.5,-30.25", "0.00")
    found = latest(box, "bare", "tcp_tracking").json()
    assert (found["location"], found["speed"]) == ("36.5,-30.25", 0.0)
    assert latest(box, "nowhere").json()["location"] == ""


def test_latest_sees_what_v1_records_took_and_the_other_way_round(box: Box) -> None:
    sent = {"device_id": "mixed", "time": AT, "location": "x", "speed": 5.5, "ignition": True}
    assert box.http.post("/v1/records", json=sent).status_code == 202
    assert latest(box, "mixed").json()["speed"] == "5.50"
    assert post(box, taken("mixed 2", speed=5.5, fuel=7)).status_code == 202
    found = box.http.get("/v1/devices/mixed%202/latest").json()
    assert (found["transport"], found["source"], found["speed_kmh"]) == ("http", "older", 5.5)


@pytest.mark.parametrize("kind", ["tracking", "tcp_tracking"])
def test_head_is_get_without_a_body(box: Box, kind: str) -> None:
    box.append(Sent("head", record(AT_US)), Sent("head", record(AT_US, "tcp")))
    got = latest(box, "head", kind)
    headed = box.http.head(f"/{kind}/data/latest/head/")
    assert headed.status_code == 200
    assert headed.content == b""
    for name in ("content-type", "content-length", "allow", "vary"):
        assert headed.headers[name] == got.headers[name]
    assert box.http.head(f"/{kind}/data/latest/nobody/").status_code == 404


# The trailing slash, and other methods ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/tracking/data/latest/123", "/tracking/data/latest/123/"),
        ("/tracking/data/latest/123?x=1", "/tracking/data/latest/123/?x=1"),
        ("/tcp_tracking/data/latest/device123", "/tcp_tracking/data/latest/device123/"),
        ("/tracking/data/latest/a%20b%25%C3%BC?b=%2B+1&a=%20", "/tracking/data/latest/a%20b%25%C3%BC/?b=%2B+1&a=%20"),
        ("/tracking/data/latest/%0d%0aX:1", "/tracking/data/latest/%0d%0aX:1/"),
        ("/tracking/data?x=1", "/tracking/data/?x=1"),
    ],
)
def test_without_the_slash_it_is_a_redirect_that_keeps_everything(
    box: Box, method: str, asked: str, location: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=10)
    connection.request(method, asked)
    answer = connection.getresponse()
    assert answer.status == 301
    assert answer.getheader("Location") == location
    assert answer.read() == b""
    assert answer.getheader("X-Frame-Options") == "DENY"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    connection.close()


def test_the_readmes_way_to_ask_for_latest_works(box: Box) -> None:
    assert post(box, taken("readme")).status_code == 202
    answer = box.http.get("/tracking/data/latest/readme", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.json()["device_id"] == "readme"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_data_can_only_be_posted(box: Box, method: str) -> None:
    answer = box.http.request(method, POST)
    if method == "HEAD":
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST, OPTIONS"
    else:
        assert_posted(answer, 405, f'{{"detail":"Method \\"{method}\\" not allowed."}}')


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("kind", ["tracking", "tcp_tracking"])
def test_latest_can_only_be_read(box: Box, method: str, kind: str) -> None:
    answer = box.http.request(method, f"/{kind}/data/latest/123/")
    assert_latest(answer, 405, f'{{"detail":"Method \\"{method}\\" not allowed."}}')


@pytest.mark.parametrize("path", ["/tracking/data/latest/a%2Fb/", "/tracking/data/latest/", "/tcp_tracking/data/"])
def test_what_is_not_there(box: Box, path: str) -> None:
    assert box.http.get(path).status_code == 404
    assert box.http.post(path, content=taken("x")).status_code == 404


# Redis is away ---------------------------------------------------------------------------------------


def test_without_redis_it_is_503_and_nothing_is_lost(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with box_on(own_redis.url, tmp_path_factory.mktemp("away")) as box:
        assert post(box, taken("a", speed=1)).status_code == 202
        own_redis.kill()
        for _ in range(2):
            answers = [post(box, taken("a", speed=2)), latest(box, "a"), latest(box, "a", "tcp_tracking")]
            for answer, allow in zip(answers, ("POST, OPTIONS", *["GET, HEAD, OPTIONS"] * 2), strict=True):
                assert list(answer.json()) == ["detail"]
                assert int(answer.headers["retry-after"]) > 0
                assert_answer(answer, 503, answer.text, allow)
        assert post(box, bad(speed="fast")).status_code == 400, "what is bad is bad without Redis too"
        own_redis.start()
        assert latest(box, "a").json()["speed"] == "1.00"
        assert post(box, taken("a", speed=3)).status_code == 202
        assert latest(box, "a").json()["speed"] == "3.00"


def test_a_query_string_is_no_part_of_a_post(box: Box) -> None:
    path = f"{POST}?{urllib.parse.urlencode({'format': 'json', 'x': 1})}"
    assert post(box, taken("query"), path=path).status_code == 202
