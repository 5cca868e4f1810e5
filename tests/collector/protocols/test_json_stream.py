"""JSON over TCP: the start and end of messages in any division into pieces, and their replies."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Message, Received, Rejected
from collector.protocols import PROTOCOLS, MessageLimits
from collector.protocols.json_stream import MANY_BYTES, QUICK_BYTES, JsonStream
from telemetry.codec.record_parser import Arrival
from telemetry.codec.typed_decoder import LEARN_RECORDS
from telemetry.model import problems
from telemetry.model.record import Record, Sent
from tests.collector.protocols.three_ways import apart

NOW_US = 1_795_500_000_000_000
ARRIVAL = Arrival(NOW_US, NOW_US + 86_400_000_000)
MAX_BYTES = 1_000
GOOD = b'{"device_id":"good"}\n'

RECEIVED = "Data received"
BAD_JSON = "Invalid JSON format."
BAD_FORMAT = "Invalid input data format."
NOT_PROCESSED = "There was an error processing the data."
MISSING = "Invalid input data. Missing fields: device_id"
OLDER_BAD_JSON = b'{"message": "Invalid JSON format."}'
OLDER_BAD_FORMAT = b'{"message": "Invalid input data format."}'
OLDER_NOT_PROCESSED = b'{"message": "There was an error processing the data."}'


def stream(max_bytes: int = MAX_BYTES, max_records: int = 100) -> JsonStream:
    return JsonStream(max_bytes, max_records)


def ok(*devices: str) -> tuple[bytes, list[str]]:
    """A line that is taken: its answer, and the devices of its records."""
    return b'{"message": "Data received", "accepted": %d}\n' % len(devices), list(devices)


def bad(message: str, error: str) -> tuple[bytes, list[str]]:
    """A line that is refused."""
    return json.dumps({"message": message, "error": error, "retry": False}).encode() + b"\n", []


def outcomes(messages: Iterable[Message]) -> list[tuple[bytes, list[str]]]:
    """Replies after all records are stored, and the stored devices. Lines that were read together are separated."""
    return [
        (m.stored, [sent.device_id for sent in m.records]) if isinstance(m, Received) else (m.answer, [])
        for m in itertools.chain.from_iterable(map(apart, messages))
    ]


def feed(decoder: JsonStream, pieces: Iterable[bytes]) -> list[Message]:
    found = []
    for piece in pieces:
        found += decoder.feed(piece, ARRIVAL)
        assert len(decoder._buffer) <= decoder._max_bytes + 1, "what is kept stays bounded"
    return found


def single(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def test_it_is_what_the_registry_makes() -> None:
    decoder = PROTOCOLS["json"](MessageLimits(100, 10))
    assert outcomes(decoder.feed(GOOD, ARRIVAL)) == [ok("good")]


# Lines -----------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """Bytes that end with a complete message, and the expected outcomes."""

    data: bytes
    expected: list[tuple[bytes, list[str]]]


def surrogates(at: int) -> str:
    return f"invalid utf-16 surrogate pair at byte {at}"


NO_RECORD = "record 0: a record must be an object, not "
CASES = {
    "an object": Case(b'{"device_id":"a"}\n', [ok("a")]),
    "an array": Case(b'[{"device_id":"a"},{"device_id":2}]\n', [ok("a", "2")]),
    "an empty array": Case(b"[]\n", [ok()]),
    "over several lines": Case(b'[\n  {\n    "device_id": "a",\n    "x": [1,\n2]\n  }\n]\n', [ok("a")]),
    "an object over lines": Case(b'{\n"device_id"\n:\n"a"\n}\n', [ok("a")]),
    "CRLF": Case(b'{"device_id":"a"}\r\n[\r\n{"device_id":"b"}\r\n]\r\n', [ok("a"), ok("b")]),
    "blank lines": Case(b'\n \r\n\t{"device_id":"a"} \t\n\n', [ok("a")]),
    "several lines": Case(b'{"device_id":"a"}\n{"device_id":"b"}\n[{"device_id":"c"}]\n', [ok("a"), ok("b"), ok("c")]),
    "several on one line": Case(
        b'{"device_id":"a"}{"device_id":"b"} [{"device_id":"c"}]\n', [ok("a"), ok("b"), ok("c")]
    ),
    "brackets and escapes in text": Case(
        rb'{"device_id":"}]\"{[\\","\\\"}":"\u007d\n\u00fc\ud83d\ude00"}' + b"\n", [ok('}]"{[\\')]
    ),
    "text beyond ASCII": Case('{"device_id":"ş😀"}\n'.encode(), [ok("ş😀")]),
    "a number": Case(b"5\n", [bad(BAD_FORMAT, NO_RECORD + "a number")]),
    "text": Case(b'"a {\\"b"\n', [bad(BAD_FORMAT, NO_RECORD + "text")]),
    "a literal": Case(b"true null\n", [bad(BAD_FORMAT, NO_RECORD + w) for w in ("true or false", "null")]),
    "scalars next to values": Case(
        b'1{"device_id":"a"}"b"[]\n',
        [bad(BAD_FORMAT, NO_RECORD + "a number"), ok("a"), bad(BAD_FORMAT, NO_RECORD + "text"), ok()],
    ),
    "an array in an array": Case(b"[[]]\n", [bad(BAD_FORMAT, NO_RECORD + "an array")]),
    "no device": Case(b'[{"device_id":"a"},{"speed":1}]\n', [bad(MISSING, "record 1: device_id: required")]),
    "a null device": Case(b'{"device_id":null}\n', [bad(MISSING, "record 0: device_id: required")]),
    "a bad value": Case(
        b'[{"device_id":"a"},{"device_id":"b","lat":91}]\n',
        [bad(BAD_FORMAT, "record 1: latitude: must be between -90 and 90")],
    ),
    "no JSON": Case(b"hello world\n", [bad(BAD_JSON, "invalid character at byte 0")]),
    "an HTTP request": Case(
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        [bad(BAD_JSON, "invalid character at byte 0"), bad(BAD_JSON, "invalid character at byte 0")],
    ),
    "a bad key": Case(b"{device_id:1}\n" + GOOD, [bad(BAD_JSON, "object keys must be strings at byte 1"), ok("good")]),
    "a stray bracket": Case(b'}{"device_id":"a"}\n' + GOOD, [bad(BAD_JSON, "invalid character at byte 0"), ok("good")]),
    "brackets that differ": Case(
        b'{"device_id":1] {"device_id":"a"}\n' + GOOD, [bad(BAD_JSON, "expected ',' or '}' at byte 14"), ok("good")]
    ),
    "no JSON behind a value": Case(
        b'{"device_id":"a"} # {}\n' + GOOD, [ok("a"), bad(BAD_JSON, "invalid character at byte 0"), ok("good")]
    ),
    "cut off in an object": Case(
        b'{"device_id":"a",\n' + GOOD + GOOD,
        [bad(BAD_JSON, "object keys must be strings at byte 18"), ok("good"), ok("good")],
    ),
    "cut off in an array": Case(
        b'[{"device_id":"a"}\n' + GOOD * 2, [bad(BAD_JSON, "expected ',' or ']' at byte 19"), ok("good"), ok("good")]
    ),
    "cut off in text": Case(b'{"device_id":"a\n' + GOOD, [bad(BAD_JSON, "invalid character at byte 15"), ok("good")]),
    "cut off in an escape": Case(
        b'{"device_id":"a\\\n' + GOOD, [bad(BAD_JSON, "invalid escape character in string at byte 16"), ok("good")]
    ),
    "cut off in a literal": Case(
        b'{"device_id":"a","x":tru\n' + GOOD, [bad(BAD_JSON, "invalid character at byte 21"), ok("good")]
    ),
    "cut off in a number": Case(
        b'{"device_id":"a","x":-\n' + GOOD, [bad(BAD_JSON, "invalid character at byte 22"), ok("good")]
    ),
    "cut off again and again": Case(
        b'{"a":1,\n' * 5 + GOOD, [bad(BAD_JSON, "object keys must be strings at byte 8")] * 5 + [ok("good")]
    ),
    "wrong in its third line": Case(
        b'{"a":1,\n"b":2\n"c":3,\n"d":4}\n' + GOOD,
        [
            bad(BAD_JSON, "expected ',' or '}' at byte 14"),
            bad(BAD_FORMAT, NO_RECORD + "text"),
            bad(BAD_JSON, "invalid character at byte 0"),
            ok("good"),
        ],
    ),
    "not UTF-8": Case(
        b'{"device_id":"a\xff"}\n' + GOOD, [bad(NOT_PROCESSED, "not UTF-8: invalid start byte"), ok("good")]
    ),
    "not UTF-8 over lines": Case(
        b'[\n{"device_id":"\xe4"},\n{"device_id":"a"}\n]\n',
        [
            bad(NOT_PROCESSED, "not UTF-8: unexpected end of data"),
            ok("a"),
            bad(BAD_JSON, "invalid character at byte 0"),
        ],
    ),
    "a BOM": Case(b"\xef\xbb\xbf" + GOOD * 2, [bad(BAD_JSON, "invalid character at byte 0"), ok("good")]),
    "NaN": Case(b'{"device_id":"a","speed":NaN}\n', [bad(BAD_JSON, "invalid character at byte 25")]),
    "a number beyond all": Case(
        b'{"device_id":"a",\n"speed":1e400}\n' + GOOD, [bad(BAD_JSON, "Number out of range at byte 26"), ok("good")]
    ),
    "half a surrogate pair": Case(
        rb'{"device_id":"\udc00"}' + b"\n" + GOOD, [bad(BAD_JSON, surrogates(20)), ok("good")]
    ),
    "a surrogate pair that is none": Case(
        rb'{"device_id":"\ud800\u0041",' + b'\n"a":1}\n',
        [
            bad(BAD_JSON, surrogates(26)),
            bad(BAD_FORMAT, NO_RECORD + "text"),
            bad(BAD_JSON, "invalid character at byte 0"),
        ],
    ),
    "deep nesting that is only refused": Case(
        b'{"device_id":"a","x":' + b"[" * 200 + b"]" * 200 + b"}\n",
        [bad(BAD_FORMAT, "record 0: attributes: must not be nested deeper than 32")],
    ),
    "zeros": Case(b"\0\0\n" + GOOD, [bad(BAD_JSON, "invalid character at byte 0"), ok("good")]),
}
"""Streams that consist of lines."""

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
def test_whole(case: Case) -> None:
    assert outcomes(feed(stream(), [case.data])) == case.expected


@cases
def test_byte_by_byte(case: Case) -> None:
    assert outcomes(feed(stream(), single(case.data))) == case.expected


@cases
def test_with_the_head_of_the_next_behind_it(case: Case) -> None:
    for size in (1, len(GOOD) // 2, len(GOOD) - 1):
        decoder = stream()
        assert outcomes(feed(decoder, [case.data + GOOD[:size]])) == case.expected
        assert decoder.is_mid_message
        assert outcomes(feed(decoder, [GOOD[size:]])) == [ok("good")]
        assert not decoder.is_mid_message


@cases
def test_behind_a_line(case: Case) -> None:
    assert outcomes(feed(stream(), [GOOD, case.data])) == [ok("good"), *case.expected]


@cases
def test_nothing_is_left_at_the_end(case: Case) -> None:
    decoder = stream()
    feed(decoder, [case.data])
    assert not decoder.waits_for_quiet
    assert decoder.quiet(ARRIVAL) == decoder.eof(ARRIVAL) == []


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(list(CASES.values())), min_size=1, max_size=4), st.lists(st.integers(0), max_size=12))
def test_in_random_pieces(some: list[Case], places: list[int]) -> None:
    data = b"".join(case.data for case in some)
    assert outcomes(feed(stream(), cut(data, places))) == [one for case in some for one in case.expected]


def test_the_records_of_a_line() -> None:
    [message] = stream().feed(b'[{"device_id":7,"lat":1,"lon":-2.5,"speed":"9","io":[1]}]\n', ARRIVAL)
    assert isinstance(message, Received)
    record = Record(NOW_US, "tcp", "json", 1.0, -2.5, speed_kmh=9.0, attributes='{"io":[1]}')
    assert message.records == [Sent("7", record)]
    assert message.size_bytes == 57
    assert not message.last
    assert message.not_stored("Redis is away") == (
        b'{"message": "There was an error processing the data.", "error": "Redis is away", "retry": true}\n'
    )


def test_behind_many_quick_lines_more_may_be_read_at_once() -> None:
    decoder, many = stream(2**20), GOOD * (2 * MANY_BYTES // len(GOOD))
    for piece in (many, many):  # from the first of them the names are learnt
        decoder.feed(piece, ARRIVAL)
    assert decoder.wanted_bytes == QUICK_BYTES
    for last in (GOOD, b'{"device_id":"good"', b'}\n{"speed":1}\n', many + b"[\n"):
        decoder.feed(many, ARRIVAL)
        decoder.feed(last, ARRIVAL)
        assert decoder.wanted_bytes == 0


def test_the_speed_unit_of_the_listener_holds() -> None:
    [message] = stream().feed(b'{"device_id":7,"speed":10}\n', ARRIVAL._replace(speed_unit="knots"))
    assert isinstance(message, Received)
    assert message.records[0].record.speed_kmh == pytest.approx(18.52)


def test_a_refused_line_is_counted_with_its_reason() -> None:
    [message] = stream().feed(b'{"device_id":""}\n', ARRIVAL)
    why = "record 0: device_id: must not be blank"
    assert message == Rejected(problems.INVALID_RECORD, why, message.answer)  # type: ignore[union-attr]


def test_more_records_than_a_message_may_hold() -> None:
    data = b"[" + b",".join([GOOD.strip()] * 3) + b"]\n"
    assert outcomes(stream(max_records=3).feed(data, ARRIVAL)) == [ok("good", "good", "good")]
    error = "3 records in one message, more than 2"
    assert outcomes(stream(max_records=2).feed(data, ARRIVAL)) == [bad(BAD_FORMAT, error)]


@pytest.mark.parametrize("data", [b"[" * 20_000, b'{"a":' * 20_000, b"[" * 20_000 + b"]" * 20_000])
def test_nesting_too_deep_for_any_parser(data: bytes) -> None:
    """Python 3.11 gives up at some 1,000 levels, 3.13 at some 10,000."""
    at = 500 if data[0] == ord("[") else 2_500
    expected = [bad(BAD_JSON, f"nested too deeply at byte {at}"), ok("good")]
    for pieces in ([data + b"\n" + GOOD], cut(data + b"\n" + GOOD, range(0, 100_000, 970))):
        decoder = stream(300_000)
        assert outcomes(feed(decoder, pieces)) == expected


# Length ----------------------------------------------------------------------------------------------


def of_length(size: int) -> bytes:
    return b'{"device_id":"' + b"x" * (size - 16) + b'"}'


def test_a_message_may_have_its_full_length() -> None:
    for tail in (b"\n", b" " * 50 + b"\r\n", GOOD):
        for pieces in ([of_length(100) + tail], single(of_length(100) + tail)):
            [(_, devices), *_] = outcomes(feed(stream(100), pieces))
            assert devices == ["x" * 84]


TOO_LONG = [of_length(101) + b"\n" + GOOD, b'{"a":\n' + b" " * 100, b'"' + b"x" * 200 + b'"\n', b"1" * 101, b"[" * 101]


@pytest.mark.parametrize("data", TOO_LONG)
def test_a_longer_line_is_refused_and_ends_the_connection(data: bytes) -> None:
    expected = [ok("good"), bad(NOT_PROCESSED, "message longer than 100 bytes")]
    for pieces in ([GOOD + data], [GOOD, data], single(GOOD + data)):
        decoder = stream(100)
        found = feed(decoder, pieces)
        assert outcomes(found) == expected
        assert [message.last for message in found] == [False, True]
        assert decoder.feed(GOOD, ARRIVAL) == decoder.quiet(ARRIVAL) == decoder.eof(ARRIVAL) == []
        assert not decoder.waits_for_quiet
        assert not decoder.is_mid_message


@pytest.mark.parametrize("data", [*TOO_LONG, b"x" * 200 + b"\n"])
def test_a_longer_first_message_is_answered_in_the_older_form(data: bytes) -> None:
    for pieces in ([data], single(data)):
        found = feed(stream(100), pieces)
        assert outcomes(found) == [(OLDER_NOT_PROCESSED, [])]
        assert found[0].last


def test_a_long_line_that_is_no_json_costs_only_itself() -> None:
    data = GOOD + b"x" * 300 + b"\n" + GOOD
    for pieces in ([data], single(data)):
        found = outcomes(feed(stream(100), pieces))
        assert found == [ok("good"), bad(BAD_JSON, "invalid character at byte 0"), ok("good")]


def test_blanks_count_for_nothing() -> None:
    decoder = stream(100)
    found = feed(decoder, [b" \n" * 1_000, GOOD.strip(), b" " * 1_000, b" " * 1_000 + b"\n", b"\r\n" * 1_000])
    assert outcomes(found) == [ok("good")]


# Silence and the end of sending ----------------------------------------------------------------------


def older_ok(data: object) -> bytes:
    return json.dumps({"message": RECEIVED, "data": data}).encode()


DEVICE123 = {"device_id": "device123", "location": "123.456,78.901", "speed": "55.5"}
OLDER = {
    "the object of its README": (
        b'{"device_id":"device123","location":"123.456,78.901","speed":"55.5"}',
        b'{"message": "Data received", "data": '
        b'[{"device_id": "device123", "location": "123.456,78.901", "speed": "55.5"}]}',
    ),
    "a list": (json.dumps([DEVICE123, DEVICE123]).encode(), older_ok([DEVICE123, DEVICE123])),
    "an empty list": (b"[]", b'{"message": "Data received", "data": []}'),
    "what was sent is echoed": (
        '{"speed": 1.50, "fuel" : null,"device_id":7,"location":" ü "}'.encode(),
        b'{"message": "Data received", "data": '
        b'[{"speed": 1.5, "fuel": null, "device_id": 7, "location": " \\u00fc "}]}',
    ),
    "blanks around": (b"  " + json.dumps(DEVICE123).encode() + b" \t", older_ok([DEVICE123])),
    "newlines before": (b"\r\n\n" + json.dumps(DEVICE123).encode(), older_ok([DEVICE123])),
    "over several lines": (json.dumps(DEVICE123, indent=2).encode(), older_ok([DEVICE123])),
    "coordinates alone": (
        b'{"device_id":"d","latitude":1,"longitude":2}',
        b'{"message": "Data received", "data": [{"device_id": "d", "latitude": 1, "longitude": 2}]}',
    ),
    "a field missing": (
        b'{"device_id":"d","speed":1}',
        b'{"message": "Invalid input data. Missing fields: location"}',
    ),
    "several missing": (
        b'[{"device_id":"d","location":"x"},{"speed":1}]',
        b'{"message": "Invalid input data. Missing fields: device_id, location, speed"}',
    ),
    "a bad value": (b'{"device_id":"d","location":"x","speed":"fast"}', OLDER_BAD_FORMAT),
    "null": (b'{"device_id":null,"location":"x","speed":1}', OLDER_BAD_FORMAT),
    "a bad time": (b'{"device_id":"d","location":"x","speed":1,"timestamp":5}', OLDER_BAD_FORMAT),
    "NaN as text": (b'{"device_id":"d","location":"x","speed":"NaN"}', OLDER_BAD_FORMAT),
    "a number beyond all": (b'{"device_id":"d","location":"x","speed":1e400}', OLDER_BAD_FORMAT),
    "one in an unknown field": (b'{"device_id":"d","location":"x","speed":1,"fuel":-1e400}', OLDER_BAD_FORMAT),
    "half a surrogate pair": (rb'{"device_id":"\ud83d","location":"x","speed":1}', OLDER_BAD_FORMAT),
    "a number in place of a record": (b"5", OLDER_BAD_FORMAT),
    "numbers in place of records": (b"[1,2]", OLDER_BAD_FORMAT),
    "text in place of a record": (b'"a"', OLDER_BAD_FORMAT),
    "no JSON": (b"{invalid_json:}", OLDER_BAD_JSON),
    "words": (b"hello", OLDER_BAD_JSON),
    "several words": (b"hello {world} again", OLDER_BAD_JSON),
    "a comma too many": (b'{"device_id":"d","location":"x",}', OLDER_BAD_JSON),
    "wrong in its second line": (b'{"device_id":"d",\nlocation:"x"}', OLDER_BAD_JSON),
    "brackets that differ": (b'{"device_id":1]', OLDER_BAD_JSON),
    "a bare NaN": (b'{"device_id":"d","location":"x","speed":NaN}', OLDER_BAD_JSON),
    "a BOM": (b"\xef\xbb\xbf" + json.dumps(DEVICE123).encode(), OLDER_BAD_JSON),
    "a lone newline": (b"\n", OLDER_BAD_JSON),
    "blanks": (b" \r\n ", OLDER_BAD_JSON),
    "a literal cut short": (b"tru", OLDER_BAD_JSON),
    "too many digits": (b"1" * 900, OLDER_BAD_FORMAT),
    "not UTF-8": (b'{"device_id":"\xff","location":"x","speed":1}', OLDER_NOT_PROCESSED),
    "not UTF-8 at all": (b"\xff\xfe{\0}\0", OLDER_NOT_PROCESSED),
    "words not in UTF-8": (b"gr\xfc\xdfe an alle", OLDER_NOT_PROCESSED),
}
"""First messages without a newline after them, and their replies."""

olders = pytest.mark.parametrize(("data", "answer"), OLDER.values(), ids=OLDER)
ends = pytest.mark.parametrize("end", [JsonStream.quiet, JsonStream.eof])


@olders
@ends
def test_an_older_message(data: bytes, answer: bytes, end: object) -> None:
    for pieces in ([data], single(data)):
        decoder = stream()
        assert feed(decoder, pieces) == []
        assert decoder.waits_for_quiet
        [message] = end(decoder, ARRIVAL)  # type: ignore[operator]
        assert outcomes([message])[0][0] == answer
        assert message.last
        assert decoder.feed(GOOD, ARRIVAL) == decoder.quiet(ARRIVAL) == decoder.eof(ARRIVAL) == []


def test_the_records_of_an_older_message() -> None:
    decoder = stream()
    decoder.feed(b'{"device_id":" d ","location":"1,2","speed":"55.5","timestamp":"2024-11-12","x":1}', ARRIVAL)
    [message] = decoder.quiet(ARRIVAL)
    assert isinstance(message, Received)
    expected = Record(
        1_731_369_600_000_000, "tcp", "older", 1.0, 2.0, speed_kmh=55.5, location="1,2", attributes='{"x":1}'
    )
    assert message.records == [Sent("d", expected)]
    assert message.not_stored("Redis is away") == OLDER_NOT_PROCESSED


def test_an_older_message_may_pause_wherever_its_pieces_end() -> None:
    data = b'{"device_id":"\xc3\xbc\\"}","location":"x","speed":-1.5e+1,"a":true}'
    for place in range(1, len(data)):
        decoder = stream()
        assert decoder.feed(data[:place], ARRIVAL) == []
        assert decoder.quiet(ARRIVAL) == [], data[:place]
        assert decoder.feed(data[place:], ARRIVAL) == []
        assert len(decoder.quiet(ARRIVAL)) == 1


def test_an_older_message_nested_as_deep_as_its_reader_goes() -> None:
    record = json.dumps(DEVICE123)[:-1].encode()
    for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit() + 20):
        decoder = stream(max_bytes=10_000)
        data = b'%s,"deep":%s%s}' % (record, b"[" * depth, b"]" * depth)
        [message] = decoder.feed(data, ARRIVAL) + decoder.eof(ARRIVAL)
        answer = message.answer if isinstance(message, Rejected) else message.stored
        assert answer.startswith((b'{"message": "Data received"', b'{"message": "Invalid ')), depth


def test_the_end_of_sending_without_any_message() -> None:
    assert outcomes(stream().eof(ARRIVAL)) == [(OLDER_BAD_JSON, [])]
    assert stream().quiet(ARRIVAL) == []
    assert not stream().waits_for_quiet


def test_an_older_message_that_is_cut_short_ends_with_the_sending_only() -> None:
    decoder = stream()
    decoder.feed(b'{"device_id":', ARRIVAL)
    assert decoder.quiet(ARRIVAL) == []
    assert outcomes(decoder.eof(ARRIVAL)) == [(OLDER_BAD_JSON, [])]


@pytest.mark.parametrize("line", [GOOD, b"{}\n", b"nonsense\n", b"{}{"])
@ends
def test_never_the_older_form_after_a_line(line: bytes, end: object) -> None:
    decoder = stream()
    first = decoder.feed(line, ARRIVAL)
    if not first:
        first = decoder.quiet(ARRIVAL)
    assert first
    decoder.feed(b"\n" + GOOD.strip(), ARRIVAL)
    assert decoder.waits_for_quiet
    [*_, message] = end(decoder, ARRIVAL)  # type: ignore[operator]
    assert message.last is False
    assert outcomes([message])[0][0].endswith(b"\n")


@ends
def test_silence_ends_the_last_of_several_values(end: object) -> None:
    decoder = stream()
    assert outcomes(decoder.feed(b'{"device_id":"a"}{"device_id":"b"}', ARRIVAL)) == [ok("a")]
    assert outcomes(end(decoder, ARRIVAL)) == [ok("b")]  # type: ignore[operator]
    assert not decoder.is_mid_message


def test_silence_shows_an_error_in_an_unfinished_line_and_takes_what_is_behind() -> None:
    long = b'{"device_id":"a","x":"' + b"x" * 100 + b'",\n'
    for behind, expected in (
        (GOOD, [ok("good")]),
        (GOOD * 2, [ok("good")] * 2),
        (GOOD.strip(), [ok("good")]),
        (GOOD + b"}\n" + GOOD, [ok("good"), bad(BAD_JSON, "invalid character at byte 0"), ok("good")]),
        (b'{"device_id":', []),
    ):
        decoder = stream()
        early = decoder.feed(GOOD + long + behind, ARRIVAL)
        late = decoder.quiet(ARRIVAL)
        error = f"object keys must be strings at byte {len(long)}"
        assert outcomes(early + late) == [ok("good"), bad(BAD_JSON, error), *expected]
        assert decoder.is_mid_message == (not expected)
        assert not decoder.waits_for_quiet


def test_silence_in_the_middle_of_a_line_ends_nothing() -> None:
    data = b'[{"device_id":"\xc3\xbc","a":[true,-1.5],\n"b":"\\u00fc"}]\n'
    for place in range(1, len(data) - 1):
        decoder = stream()
        assert outcomes(decoder.feed(GOOD + data[:place], ARRIVAL)) == [ok("good")]
        assert decoder.quiet(ARRIVAL) == []
        assert outcomes(decoder.feed(data[place:], ARRIVAL)) == [ok("ü")]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b'{"device_id":"a"', [bad(BAD_JSON, "cut short")]),
        (b'{"device_id":"a",\n' + GOOD + b"[1", [bad(BAD_JSON, "object keys must be strings at byte 18"), ok("good")]),
        (b"5", [bad(BAD_FORMAT, NO_RECORD + "a number")]),
        (b"nonsense", [bad(BAD_JSON, "invalid character at byte 0")]),
        (b"nonsense {", [bad(BAD_JSON, "invalid character at byte 0")]),
        (b"1e400", [bad(BAD_JSON, "Number out of range at byte 0")]),
        (b" \r\n", []),
    ],
)
def test_what_waits_at_the_end_of_sending(rest: bytes, expected: list[tuple[bytes, list[str]]]) -> None:
    for pieces in ([rest], single(rest)):
        decoder = stream()
        found = outcomes(feed(decoder, [GOOD, *pieces]) + decoder.eof(ARRIVAL))
        assert found[: 1 + len(expected)] == [ok("good"), *expected]
        assert found[1 + len(expected) :] in ([], [bad(BAD_JSON, "cut short")])
        assert not decoder._buffer


# Any bytes -------------------------------------------------------------------------------------------

MARKS = [bytes([mark]) for mark in b'\n \t{}[]"\\,:5-e\xff']
PARTS = [
    GOOD,
    GOOD.strip(),
    b"\r\n",
    b"tru",
    b'{"device_id":"a",\n',
    b'"a\n',
    b"\xc3\xbc",
    b"NaN",
    b"1e400",
    b'{"a":',
    b'"\\ud8',
]
fragments = st.one_of(
    st.sampled_from(MARKS),
    st.sampled_from(PARTS),
    st.binary(max_size=6),
    st.sampled_from(list(CASES.values())).map(lambda case: case.data[: len(case.data) * 2 // 3]),
)
streams = st.lists(fragments, max_size=14).map(b"".join)


def transcript(pieces: Sequence[bytes], ends_by_quiet: bool, max_bytes: int) -> list[Message]:
    decoder = JsonStream(max_bytes, 100)
    found = feed(decoder, pieces)
    found += decoder.quiet(ARRIVAL) if ends_by_quiet else decoder.eof(ARRIVAL)
    if not ends_by_quiet:
        assert not decoder._buffer
    return list(itertools.chain.from_iterable(map(apart, found)))


@hypothesis_settings(max_examples=500, deadline=None)
@given(streams, st.lists(st.integers(0), max_size=10), st.booleans(), st.sampled_from([40, MAX_BYTES]))
@example(b'{"a":1,\n{"b":2}\n    }\n', [], False, MAX_BYTES)
@example(b'{"device_id":"a","x":1e400,\n"y":2}\n' + GOOD, [], False, MAX_BYTES)
def test_the_same_bytes_in_any_pieces_are_the_same_messages(
    data: bytes, places: list[int], ends_by_quiet: bool, max_bytes: int
) -> None:
    whole = transcript([data], ends_by_quiet, max_bytes)
    assert transcript(cut(data, places), ends_by_quiet, max_bytes) == whole
    assert transcript(single(data), ends_by_quiet, max_bytes) == whole


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(fragments, st.booleans()), max_size=14))
def test_any_bytes_with_any_pauses_raise_nothing_and_a_good_line_gets_through(pieces: list[tuple[bytes, bool]]) -> None:
    decoder = stream()
    found: list[Message] = []
    for piece, pause in pieces:
        found += feed(decoder, [piece])
        if pause and decoder.waits_for_quiet:
            found += decoder.quiet(ARRIVAL)
    if not any(message.last for message in found):
        last = feed(decoder, [b"\n\n", GOOD * 2]) + decoder.quiet(ARRIVAL)
        assert outcomes(last)[-1] == ok("good")
    assert sum(message.last for message in found) <= 1


@pytest.mark.parametrize(
    "unit", [b'{"a":1,\n', b'{"a\n', b"x\n", b"[\n", b'{"a":\n', b'"\n', b"[1,\n2]x\n", b"}", b'"\\']
)
def test_the_cost_of_nonsense_grows_with_its_length_alone(unit: bytes) -> None:
    """A chunk of the size that a socket brings must not stop all others for long."""
    decoder = stream(2**20)
    began_s = time.process_time()
    decoder.feed(unit * (2**16 // len(unit)), ARRIVAL)
    decoder.quiet(ARRIVAL)
    assert time.process_time() - began_s < 3


# Lines of a known shape --------------------------------------------------------------------------------


def known() -> JsonStream:
    """A stream whose sender's names are known."""
    decoder = stream()
    feed(decoder, [b"".join(b'{"device_id":"d","lat":%d}\n' % number for number in range(LEARN_RECORDS // 2))] * 2)
    return decoder


def test_lines_of_a_known_shape_are_one_message() -> None:
    [message] = feed(known(), [b'{"device_id":"a","lat":1}\n \n{"device_id":"b","lat":2}\r\n{"device_id":"c"'])
    assert isinstance(message, Received)
    assert [sent.device_id for sent in message.records] == ["a", "b"]
    assert message.stored == ok("a")[0] * 2
    assert json.loads(message.not_stored("full").splitlines()[1]) == {
        "message": "There was an error processing the data.",
        "error": "full",
        "retry": True,
    }


def test_a_bad_line_among_lines_of_a_known_shape_costs_only_itself() -> None:
    data = b'{"device_id":"a","lat":1}\n{"device_id":"b","lat":91}\n{bad\n{"device_id":"c","x":[1]}\n'
    answers = outcomes(feed(known(), [data]))
    assert [devices for _, devices in answers] == [["a"], [], [], ["c"]]
    assert b"latitude: must be between -90 and 90" in answers[1][0]


def test_known_lines_in_any_pieces_are_the_same_lines() -> None:
    data = b'{"device_id":"a","lat":1} {"device_id":"b",\n"lat":2}\n{"device_id":"c","lat":3}\n[{"device_id":"d"}]\n'
    whole = outcomes(feed(known(), [data]))
    assert [devices for _, devices in whole] == [["a"], ["b"], ["c"], ["d"]]
    assert outcomes(feed(known(), single(data))) == whole
