"""Detection of a connection's protocol by its first byte."""

from __future__ import annotations

import pytest

from collector.framing.decoder import Decoder
from collector.protocols import FIRST_BYTES, PROTOCOLS, MessageLimits
from collector.protocols.first_byte import FirstByte
from collector.protocols.json_stream import JsonStream
from collector.protocols.msgpack_frames import Frames
from collector.protocols.msgpack_stream import MsgpackStream
from tests.collector.protocols.test_msgpack_frames import frame
from tests.collector.protocols.three_ways import ARRIVAL, devices, feed, packed, single

LIMITS = MessageLimits(1_000, 20)


def chosen(first: bytes) -> Decoder | None:
    found = PROTOCOLS["any"](LIMITS)
    assert isinstance(found, FirstByte)
    found.feed(first, ARRIVAL)
    return found._chosen


MESSAGES = {
    JsonStream: [b'{"device_id":"a"}\n', b' [{"device_id":"a"}]\n', b'\r\n\t{"device_id":"a"}\n'],
    Frames: [frame(1, "s", 1, [{"device_id": "a"}]), frame(1, None, 1, [{"device_id": "a", "x": "x" * 900}])],
    MsgpackStream: [
        packed({"device_id": "a"}),
        packed([{"device_id": "a"}]),
        packed({"device_id": "a", **{f"x{n}": n for n in range(20)}}),
        b"\xdf\0\0\0\1\xa9device_id\xa1a",
        packed([{"device_id": "a"}] * 17),
        b"\xdd\0\0\0\1\x81\xa9device_id\xa1a",
    ],
}


@pytest.mark.parametrize(("kind", "data"), [(kind, data) for kind, found in MESSAGES.items() for data in found])
def test_each_is_known_by_its_first_byte(kind: type[Decoder], data: bytes) -> None:
    assert type(chosen(data[:1])) is kind
    for pieces in ([data], single(data)):
        [message] = feed(PROTOCOLS["any"](LIMITS), pieces)
        assert set(devices(message)) == {"a"}


def test_all_other_first_bytes_are_json() -> None:
    kinds = {byte: type(chosen(bytes([byte]))) for byte in range(256)}
    assert {byte for byte, kind in kinds.items() if kind is not JsonStream} == set(FIRST_BYTES)
    assert all(kinds[byte] is JsonStream for byte in b' \t\r\n{["tfn-0123456789')


def test_before_the_first_byte_there_is_nothing() -> None:
    found = PROTOCOLS["any"](LIMITS)
    assert found.feed(b"", ARRIVAL) == found.quiet(ARRIVAL) == []
    assert not found.waits_for_quiet
    assert not found.is_mid_message


def test_who_sends_nothing_at_all_hears_what_json_says() -> None:
    any_, json_ = PROTOCOLS["any"](LIMITS), PROTOCOLS["json"](LIMITS)
    assert any_.eof(ARRIVAL) == json_.eof(ARRIVAL) != []


def test_silence_is_passed_on() -> None:
    found = PROTOCOLS["any"](LIMITS)
    assert found.feed(b'{"device_id":"a","location":"x","speed":1}', ARRIVAL) == []
    assert found.waits_for_quiet
    assert not found.waits_for_more
    assert found.is_mid_message
    [message] = found.quiet(ARRIVAL)
    assert devices(message) == ["a"]
