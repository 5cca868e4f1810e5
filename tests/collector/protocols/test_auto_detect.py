"""Detection of a connection's protocol by its first bytes, by as few of them as possible."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.framing.decoder import Decoder
from collector.framing.frame_decoder import Options
from collector.protocols import PROTOCOLS, TRACKERS, MessageLimits
from collector.protocols.auto_detect import MAX_NUMBER_BYTES, Auto, choose
from tests.collector.protocols.three_ways import ARRIVAL, answer, cut, feed, packed, single
from tests.collector.protocols.trackers import outcomes
from tests.collector.trackers.gt06 import test_decoder
from tests.collector.trackers.teltonika import test_decoder as test_teltonika

FRAME = packed([1, "s", 1, [{"device_id": "a"}]])
STARTS = {
    b"\x00\x0f356307042441013": "teltonika",
    b"\xff\x00\x0f3563": "teltonika",
    len(FRAME).to_bytes(4, "big") + FRAME: "frames",
    b"\x00\x0f33\x94\x01": "frames",
    packed({"device_id": "a"}): "msgpack",
    packed([{"device_id": "a"}]): "msgpack",
    b"\x78\x78\x0d\x01": "gt06",
    b"\x79\x79\x00\x0d": "gt06",
    b"*HQ,4106012736,V1": "h02",
    bytes.fromhex("244106012736120000010326"): "h02",
    b"$GPRMC,120000,A,": "nmea",
    b"$GPGGA,120000,A,": "nmea",
    b"$PGID,355,": "nmea",
    b"$GNRMC,120000": "nmea",
    b"IMEI 356307042441013": "nmea",
    b"QZE,356307042441013,35": "nmea",
    b"356307042441013$GPRMC": "nmea",
    b"##,imei:356307042441013,A;": "gps103",
    b"imei:356307042441013,tracker": "gps103",
    b"356307042441013;": "gps103",
    b"(013612345678BP05)": "tk103",
    b"+RESP:GTFRI,": "gl200",
    b"+ACK:GTHBD,": "gl200",
    b'{"device_id": "a"}': "json",
    b" \r\n[1]": "json",
    b"GET / HTTP/1.1": "json",
    b"xylophone": "json",
    b"1" * (MAX_NUMBER_BYTES + 1): "json",
    b"12.5\n": "json",
}


@pytest.mark.parametrize(("start", "protocol"), STARTS.items(), ids=[name.hex()[:16] for name in STARTS])
def test_first_bytes(start: bytes, protocol: str) -> None:
    assert choose(start) == protocol
    for length in range(1, len(start)):
        assert choose(start[:length]) in (None, protocol)


def make(protocol: str) -> Decoder:
    if protocol in PROTOCOLS:
        return PROTOCOLS[protocol](MessageLimits(10_000, 100))
    return TRACKERS[protocol](Options())


@pytest.mark.parametrize(
    "stream",
    [
        test_teltonika.HELLO + test_teltonika.ONE,
        test_decoder.LOGIN + test_decoder.LOCATION,
        b'{"device_id": "a"}\n{"device_id": "b"}\n',
        packed({"device_id": "a"}) * 2,
        (len(FRAME).to_bytes(4, "big") + FRAME) * 2,
    ],
)
def test_it_says_what_the_chosen_one_says(stream: bytes) -> None:
    protocol = choose(stream)
    assert protocol is not None
    alone = outcomes(feed(make(protocol), single(stream)))
    assert outcomes(feed(Auto(make), single(stream))) == alone
    assert len(alone) == 2


@settings(deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_a_start_is_bounded_and_its_pieces_don_t_matter(stream: bytes, places: list[int]) -> None:
    chosen: list[str] = []

    def note(protocol: str) -> Decoder:
        chosen.append(protocol)
        return make("json")

    one, other = Auto(note), Auto(note)
    feed(one, [stream])
    feed(other, cut(stream, places))
    assert len(stream) <= MAX_NUMBER_BYTES or len(chosen) == 2
    assert len(set(chosen)) <= 1
    one.eof(ARRIVAL)
    assert chosen


def test_it_waits_as_the_chosen_one_does() -> None:
    decoder = Auto(lambda protocol: TRACKERS[protocol](Options(address="a")))
    assert not decoder.waits_for_more
    decoder.feed(b"$GPRMC,120000,A,4100.4920,N,02858.7040,E,19.44,270,010326,,\n", ARRIVAL)
    assert (decoder.waits_for_quiet, decoder.waits_for_more) == (True, True)
    assert len(decoder.quiet(ARRIVAL)) == 1
    assert not decoder.waits_for_more


def test_who_only_looks_whether_the_port_is_open_is_no_fault() -> None:
    (message,) = Auto(make).eof(ARRIVAL)
    assert answer(message) is not None
