"""Frames: their start and end in any division into pieces, and their replies."""

from __future__ import annotations

from collections.abc import Iterable

import msgpack
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Message, Received
from collector.protocols import PROTOCOLS, MessageLimits
from collector.protocols.msgpack_frames import (
    BUSY,
    ENDED,
    MALFORMED,
    MAX_FRAME_BYTES,
    MAX_NUMBER,
    REFUSED,
    REPEATED,
    STORED,
    Frames,
)
from tests.collector.protocols.three_ways import ARRIVAL, Outcome, answer, cut, devices, feed, packed, single

MAX_BYTES = 1_000
MAX_RECORDS = 20


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def frame(*values: object) -> bytes:
    return framed(packed(list(values)))


GOOD = frame(1, "s", 9, [{"device_id": "good"}])
GOOD_OUTCOME = Outcome([9, STORED, 1, None], ["good"])


def decoder(max_bytes: int = MAX_BYTES, max_records: int = MAX_RECORDS) -> Frames:
    return Frames(max_bytes, max_records)


def unframed(data: bytes) -> object:
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return msgpack.unpackb(data[4:])


def outcomes(messages: Iterable[Message]) -> list[Outcome]:
    return [Outcome(unframed(answer(one)), devices(one), one.last) for one in messages]


def malformed(reason: str, number: int | None = None) -> Outcome:
    return Outcome([number, MALFORMED, 0, {"reason": reason}], [])


def refused(number: int, index: int | None, field: str | None, reason: str) -> Outcome:
    return Outcome([number, REFUSED, 0, {"index": index, "field": field, "reason": reason}], [])


ONE = [{"device_id": "a"}]
SHAPE = malformed("a frame must be the array [version, sender id, batch number, records]")
SENDER = malformed("sender id: must be nil or text of 1 to 64 characters", 1)
NUMBER = malformed("batch number: must be an integer from 1 to 2^53 - 1")
CASES = {
    "one record": (frame(1, "s", 1, ONE), Outcome([1, STORED, 1, None], ["a"])),
    "two records": (frame(1, "s", 2, [*ONE, {"device_id": 5}]), Outcome([2, STORED, 2, None], ["a", "5"])),
    "no record": (frame(1, "s", 3, []), Outcome([3, STORED, 0, None], [])),
    "no name": (frame(1, None, 4, ONE), Outcome([4, STORED, 1, None], ["a"])),
    "the greatest number": (frame(1, "s" * 64, MAX_NUMBER, ONE), Outcome([MAX_NUMBER, STORED, 1, None], ["a"])),
    "a sender beyond ASCII": (frame(1, "ş" * 64, 1, ONE), Outcome([1, STORED, 1, None], ["a"])),
    "bytes for text": (frame(1, "s", 1, [{"device_id": b"a"}]), Outcome([1, STORED, 1, None], ["a"])),
    "a moment": (
        frame(1, "s", 1, [{"device_id": "a", "time": msgpack.Timestamp(1_795_478_400)}]),
        Outcome([1, STORED, 1, None], ["a"]),
    ),
    "a bad field": (
        frame(1, "s", 5, [*ONE, {"device_id": "b", "lat": 91}]),
        refused(5, 1, "latitude", "must be between -90 and 90"),
    ),
    "no record but a number": (
        frame(1, "s", 5, [*ONE, *ONE, 7]),
        refused(5, 2, None, "a record must be an object, not a number"),
    ),
    "a name that is no text": (
        frame(1, "s", 5, [{"device_id": "b", 7: 1}]),
        refused(5, 0, None, "names must be text, not a number"),
    ),
    "an extension": (
        frame(1, "s", 5, [{"device_id": "b", "x": msgpack.ExtType(5, b"x")}]),
        refused(5, 0, "x", "must not be of an extension type"),
    ),
    "too many records": (
        frame(1, "s", 6, ONE * 21),
        refused(6, None, None, "21 records in one message, more than 20"),
    ),
    "too many containers": (
        frame(1, "s", 6, [{"device_id": "a", "x": [[]] * 130}]),
        malformed("more than 125 maps and arrays"),
    ),
    "another version": (frame(2, "s", 7, ONE), malformed("version: must be 1", 7)),
    "a version that is true": (frame(True, "s", 7, ONE), malformed("version: must be 1", 7)),
    "no sender": (frame(1, "", 1, ONE), SENDER),
    "a long sender": (frame(1, "s" * 65, 1, ONE), SENDER),
    "a number for a sender": (frame(1, 5, 1, ONE), SENDER),
    "number 0": (frame(1, "s", 0, ONE), NUMBER),
    "a negative number": (frame(1, "s", -1, ONE), NUMBER),
    "a number too great": (frame(1, "s", MAX_NUMBER + 1, ONE), NUMBER),
    "no integer": (frame(1, "s", 1.0, ONE), NUMBER),
    "true": (frame(1, "s", True, ONE), NUMBER),
    "no array of records": (frame(1, "s", 1, {"device_id": "a"}), malformed("records: must be an array", 1)),
    "two values": (frame(1, "s"), SHAPE),
    "three values": (frame(1, "s", 1), SHAPE._replace(answer=[1, *SHAPE.answer[1:]])),
    "five values": (frame(1, "s", 1, ONE, 1), SHAPE._replace(answer=[1, *SHAPE.answer[1:]])),
    "a map": (framed(packed({"device_id": "a"})), SHAPE),
    "a number": (framed(b"\x05"), SHAPE),
    "no msgpack": (framed(b"\xc1"), malformed("a byte that cannot begin a value")),
    "cut short": (framed(packed([1, "s", 1, ONE])[:-1]), malformed("cut short")),
    "something behind": (framed(packed([1, "s", 1, ONE]) + b"\x00\x00"), malformed("2 bytes after the value")),
    "announced, not sent": (framed(b"\xdd\xff\xff\xff\xff"), malformed("cut short")),
    "no UTF-8": (framed(b"\x94\x01\xa1\xff\x01\x90"), malformed("not UTF-8: invalid start byte")),
    "JSON": (framed(b'{"device_id":"a"}'), malformed("16 bytes after the value")),
}


def test_it_is_what_the_registry_makes() -> None:
    found = PROTOCOLS["frames"](MessageLimits(100, 10))
    assert outcomes(found.feed(GOOD, ARRIVAL)) == [GOOD_OUTCOME]
    assert not found.waits_for_quiet
    assert found.quiet(ARRIVAL) == []


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES)
def test_each_frame_three_ways(data: bytes, expected: Outcome) -> None:
    """Whole, byte by byte, and followed by the head of the next frame."""
    for pieces in ([data], single(data)):
        found = decoder()
        assert outcomes(feed(found, pieces)) == [expected]
        assert not found.is_mid_message
    for behind in range(1, len(GOOD)):
        found = decoder()
        assert outcomes(feed(found, [data + GOOD[:behind]])) == [expected]
        assert found.is_mid_message
        assert outcomes(feed(found, [GOOD[behind:]])) == [GOOD_OUTCOME], "a bad frame costs only itself"


def test_the_answers_of_a_batch() -> None:
    [message] = decoder().feed(frame(1, "s", 7, ONE), ARRIVAL)
    assert isinstance(message, Received)
    assert (message.sender, message.number) == ("s", 7)
    assert unframed(message.stored) == [7, STORED, 1, None]
    assert unframed(message.repeated) == [7, REPEATED, 0, None]
    assert unframed(message.not_stored("no room")) == [7, BUSY, 0, {"reason": "no room"}]
    assert [(sent.record.transport, sent.record.source) for sent in message.records] == [("tcp", "msgpack")]


def test_who_has_no_name_is_not_remembered() -> None:
    [message] = decoder().feed(frame(1, None, 7, ONE), ARRIVAL)
    assert isinstance(message, Received)
    assert message.sender == ""


@pytest.mark.parametrize(
    ("head", "length"),
    [(b"\0\0\0\0", 0), (b"\0\0\x03\xe9", 1_001), (b'{"de', 2065851493), (b"\xff\xff\xff\xff", 2**32 - 1)],
)
def test_a_length_that_cannot_be_ends_the_connection(head: bytes, length: int) -> None:
    ended = Outcome([None, ENDED, 0, {"reason": f"a frame of {length} bytes: it may have 1 to 1000"}], [], last=True)
    for data in (GOOD + head, GOOD + head + b"x" * 2_000 + GOOD):
        for pieces in ([data], single(data)):
            found = decoder()
            assert outcomes(feed(found, pieces)) == [GOOD_OUTCOME, ended]
            assert outcomes(found.eof(ARRIVAL)) == []
            assert not found.is_mid_message


def test_the_longest_frame_is_taken() -> None:
    data = frame(1, "s", 1, [{"device_id": "a", "x": "x" * 1_000}])
    assert outcomes(decoder(len(data) - 4).feed(data, ARRIVAL)) == [Outcome([1, STORED, 1, None], ["a"])]
    assert outcomes(decoder(len(data) - 5).feed(data, ARRIVAL))[0].last


def test_every_length_that_is_taken_begins_with_0() -> None:
    found = decoder(2**30)
    assert outcomes(found.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), ARRIVAL))[0].last
    assert decoder(2**30).feed(MAX_FRAME_BYTES.to_bytes(4, "big"), ARRIVAL) == []


@pytest.mark.parametrize("part", [1, 3, 4, 5, len(GOOD) - 1])
def test_the_end_of_sending_within_a_frame(part: int) -> None:
    found = decoder()
    assert feed(found, [GOOD[:part]]) == []
    assert outcomes(found.eof(ARRIVAL)) == [
        Outcome([None, ENDED, 0, {"reason": "a frame is cut short"}], [], last=True)
    ]
    assert found.eof(ARRIVAL) == []


def test_the_end_of_sending_between_frames() -> None:
    found = decoder()
    feed(found, [GOOD])
    assert found.eof(ARRIVAL) == []


# Any bytes -------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries({"device_id": st.just("a")}, optional={"lat": VALUES, "time": VALUES, "x": VALUES})
FRAMES = st.builds(
    frame,
    VALUES | st.just(1),
    VALUES | st.just("s"),
    VALUES | st.integers(1, 9),
    VALUES | st.lists(RECORDS, max_size=3),
)
NOISE = st.binary(max_size=30).map(framed) | st.binary(max_size=30)


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.lists(FRAMES | NOISE, max_size=5), st.lists(st.integers(0, 1_000), max_size=6))
def test_pieces_make_no_difference(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    whole = decoder()
    expected = [*feed(whole, [data]), *whole.eof(ARRIVAL)]
    for pieces in (single(data), cut(data, places)):
        found = decoder()
        assert outcomes([*feed(found, pieces), *found.eof(ARRIVAL)]) == outcomes(expected)
        assert len(found._buffer) <= MAX_BYTES + 4


@hypothesis_settings(max_examples=400, deadline=None)
@given(FRAMES)
def test_whatever_is_in_a_frame_it_costs_only_itself(data: bytes) -> None:
    *_, last = outcomes(feed(decoder(), [data + GOOD]))
    assert last == GOOD_OUTCOME


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_wrong_byte(place: int, byte: int) -> None:
    data = bytearray(GOOD)
    data[place] = byte
    found = decoder()
    for one in outcomes([*feed(found, [bytes(data)]), *found.eof(ARRIVAL)]):
        assert one.answer[1] in range(6)


def test_how_much_is_missing_is_known_once_the_length_is() -> None:
    found = decoder()
    for stop in range(len(GOOD)):
        assert found.wanted_bytes == (0 if stop < 4 else len(GOOD) - stop)
        messages = found.feed(GOOD[stop : stop + 1], ARRIVAL)
    assert (outcomes(messages), found.wanted_bytes) == ([GOOD_OUTCOME], 0)
