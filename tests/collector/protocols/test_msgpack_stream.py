"""The bare msgpack stream: the end of messages in any division into pieces, and their replies."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterable

import msgpack
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Message, Received
from collector.protocols import PROTOCOLS, MessageLimits
from collector.protocols.json_stream import JsonStream
from collector.protocols.msgpack_stream import MsgpackStream
from tests.collector.protocols.test_msgpack_frames import RECORDS, VALUES
from tests.collector.protocols.three_ways import ARRIVAL, Outcome, answer, cut, devices, feed, packed, single

MAX_BYTES = 1_000
GOOD = packed({"device_id": "good"})
GOOD_OUTCOME = Outcome({"message": "Data received", "accepted": 1}, ["good"])


def decoder(max_bytes: int = MAX_BYTES) -> MsgpackStream:
    return MsgpackStream(max_bytes, 20)


def outcomes(messages: Iterable[Message]) -> list[Outcome]:
    return [Outcome(msgpack.unpackb(answer(one)), devices(one), one.last) for one in messages]


def bad(message: str, error: str, last: bool = False) -> Outcome:
    return Outcome({"message": message, "error": error, "retry": False}, [], last)


FORMAT, SYNTAX = "Invalid input data format.", "Invalid msgpack format."
CASES = {
    "a map": (packed({"device_id": "a"}), Outcome({"message": "Data received", "accepted": 1}, ["a"])),
    "an array": (
        packed([{"device_id": "a"}, {"device_id": 2}]),
        Outcome({"message": "Data received", "accepted": 2}, ["a", "2"]),
    ),
    "nothing": (packed([]), Outcome({"message": "Data received", "accepted": 0}, [])),
    "long texts": (
        packed({"device_id": "a", "x": "x" * 500}),
        Outcome({"message": "Data received", "accepted": 1}, ["a"]),
    ),
    "a bad field": (
        packed([{"device_id": "a"}, {"device_id": "b", "lat": 91}]),
        bad(FORMAT, "record 1: latitude: must be between -90 and 90"),
    ),
    "no device": (
        packed({"lat": 5}),
        bad("Invalid input data. Missing fields: device_id", "record 0: device_id: required"),
    ),
    "a number": (b"\x05", bad(FORMAT, "record 0: a record must be an object, not a number")),
    "too many records": (packed([{}] * 21), bad(FORMAT, "21 records in one message, more than 20")),
    "too many containers": (packed([[]] * 125), bad(SYNTAX, "more than 125 maps and arrays")),
    "no UTF-8": (b"\x81\xa1\xff\x01", bad(SYNTAX, "not UTF-8: invalid start byte")),
    "a map for a name": (b"\x81\x80\x01", bad(SYNTAX, "map keys must be hashable (byte 3)")),
}
ENDS = {
    "no msgpack": (b"\xc1", bad(SYNTAX, "a byte that cannot begin a value", last=True)),
    "no msgpack within": (b"\x82\xa1a\xc1", bad(SYNTAX, "a byte that cannot begin a value", last=True)),
    "too deep": (b"\x91" * 1_025, bad(SYNTAX, "nested too deeply", last=True)),
    "too long": (
        packed({"x": "x" * 2_000}),
        bad("There was an error processing the data.", "message longer than 1000 bytes", last=True),
    ),
}


def test_it_is_what_the_registry_makes() -> None:
    found = PROTOCOLS["msgpack"](MessageLimits(100, 10))
    assert outcomes(found.feed(GOOD, ARRIVAL)) == [GOOD_OUTCOME]
    assert not found.waits_for_quiet
    assert found.quiet(ARRIVAL) == []


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES)
def test_each_message_three_ways(data: bytes, expected: Outcome) -> None:
    """Whole, byte by byte, and followed by the head of the next message."""
    for pieces in ([data], single(data)):
        found = decoder()
        assert outcomes(feed(found, pieces)) == [expected]
        assert not found.is_mid_message
    for behind in range(1, len(GOOD)):
        found = decoder()
        assert outcomes(feed(found, [data + GOOD[:behind]])) == [expected]
        assert found.is_mid_message
        assert outcomes(feed(found, [GOOD[behind:]])) == [GOOD_OUTCOME], "a bad message costs only itself"


@pytest.mark.parametrize(("data", "expected"), ENDS.values(), ids=ENDS)
def test_what_ends_a_connection(data: bytes, expected: Outcome) -> None:
    found_max = 2_000 if expected.answer["error"] == "nested too deeply" else MAX_BYTES
    for pieces in ([GOOD + data + GOOD], single(GOOD + data + GOOD)):
        found = decoder(found_max)
        assert outcomes(feed(found, pieces)) == [GOOD_OUTCOME, expected]
        assert found.eof(ARRIVAL) == []
        assert not found.is_mid_message


def test_the_longest_message_is_taken() -> None:
    data = packed({"device_id": "a", "x": "x" * 1_000})
    for more in (b"", GOOD):
        assert not outcomes(decoder(len(data)).feed(data + more, ARRIVAL))[0].last
        assert outcomes(decoder(len(data) - 1).feed(data + more, ARRIVAL))[0].last


def test_the_end_of_sending() -> None:
    found = decoder()
    assert outcomes(feed(found, [GOOD])) == [GOOD_OUTCOME]
    assert found.eof(ARRIVAL) == []
    feed(found, [GOOD[:-1]])
    assert outcomes(found.eof(ARRIVAL)) == [bad(SYNTAX, "cut short", last=True)]


def test_it_answers_as_json_lines_do() -> None:
    values: list[object] = [{"device_id": "a"}, [], 5, {"lat": 1}, [{"device_id": "a", "lon": 181}], [{}] * 30]
    for value in values:
        [one] = decoder().feed(packed(value), ARRIVAL)
        [line] = JsonStream(MAX_BYTES, 20).feed(json.dumps(value).encode() + b"\n", ARRIVAL)
        assert msgpack.unpackb(answer(one)) == json.loads(answer(line))
        if isinstance(one, Received) and isinstance(line, Received):
            assert msgpack.unpackb(one.not_stored("why")) == json.loads(line.not_stored("why"))


# Cost ------------------------------------------------------------------------------------------------


def test_many_containers_cost_little_memory() -> None:
    """Made first and refused then, a megabyte of empty arrays would take 70 MB."""
    found = decoder(2**20)
    data = packed([[]] * 1_000_000)
    tracemalloc.start()
    [one] = outcomes(found.feed(data, ARRIVAL))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one.answer["error"] == "more than 131072 maps and arrays"
    assert peak < 20 * 2**20


def test_a_message_in_many_pieces_is_looked_at_once() -> None:
    """If decoding began again with each piece, this test would take minutes."""
    data = packed({"device_id": "a", "x": list(range(200_000))})
    found = decoder(2**20)
    start_s = time.monotonic()
    assert len(feed(found, [data[at : at + 10] for at in range(0, len(data), 10)])) == 1
    assert time.monotonic() - start_s < 10


# Any bytes -------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=400, deadline=None)
@given(
    st.lists(RECORDS.map(packed) | VALUES.map(packed) | st.binary(max_size=20), max_size=6),
    st.lists(st.integers(0, 1_000), max_size=6),
)
def test_pieces_make_no_difference(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    whole = decoder(60)
    expected = [*feed(whole, [data]), *whole.eof(ARRIVAL)]
    for pieces in (single(data), cut(data, places)):
        found = decoder(60)
        assert outcomes([*feed(found, pieces), *found.eof(ARRIVAL)]) == outcomes(expected)
        assert len(found._buffer) <= 61


@hypothesis_settings(max_examples=400, deadline=None)
@given(VALUES)
def test_whatever_a_message_is_it_costs_only_itself(value: object) -> None:
    *_, last = outcomes(feed(decoder(), [packed(value) + GOOD]))
    assert last == GOOD_OUTCOME
