"""Streams with injected faults: any division into pieces gives the same messages, and decoding ends."""

from __future__ import annotations

import itertools
import json

import msgpack
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Decoder, Message, Received
from collector.protocols import PROTOCOLS, MessageLimits
from tests import bad_input
from tests.collector.protocols.three_ways import ARRIVAL, answer, apart, cut, devices, feed, packed, single

LIMITS = MessageLimits(max_bytes=300, max_records=20)
RECORD = {"device_id": "d", "latitude": 1.5, "timestamp": "2026-11-24T10:25:00Z", "attributes": {"a": [1, None, "ü"]}}
OLDER = b'{"device_id":"o","location":"x","speed":1}'

CONVERSATIONS = (
    json.dumps(RECORD).encode() + b"\n",
    json.dumps([RECORD, {"device_id": 7}], indent=1).encode() + b"\n" + OLDER + b"\n",
    OLDER,
    packed(RECORD) + packed([RECORD, RECORD]),
    bad_input.batch(records=[RECORD]) + bad_input.batch(sender=None, number=2, records=[RECORD, RECORD]),
    bad_input.framed(msgpack.packb([1, "s", 2**53 - 1, []])) * 3,
)
SHORT = tuple(data for data in bad_input.messages().values() if len(data) <= 2_000)

places = st.integers(0, 400)
faults = st.one_of(
    st.tuples(st.just("drop"), places, st.integers(1, 40).map(bytes)),
    st.tuples(st.just("put"), places, st.binary(min_size=1, max_size=6)),
    st.tuples(
        st.just("put"), places, st.sampled_from([b"\0", b"\xdd\xff\xff\xff\xff", b"\xdf", b"[" * 600, b"\n", b'"'])
    ),
    st.tuples(st.just("over"), places, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("put"), places, st.sampled_from(SHORT)),
)


def faulty(data: bytes, kind: str, place: int, part: bytes) -> bytes:
    """`data` with a fault at some place: as many bytes as `part` has left out, `part` put in, or written over it."""
    at = place % (len(data) + 1)
    return data[:at] + (b"" if kind == "drop" else part) + data[at if kind == "put" else at + len(part) :]


def any_decoder() -> Decoder:
    return PROTOCOLS["any"](LIMITS)


def outcomes(messages: list[Message]) -> list[tuple[bytes, list[str], bool]]:
    found = itertools.chain.from_iterable(map(apart, messages))
    return [(answer(message), devices(message), message.last) for message in found]


def transcript(pieces: list[bytes]) -> list[tuple[bytes, list[str], bool]]:
    decoder = any_decoder()
    found: list[Message] = []
    for piece in pieces:
        found += decoder.feed(piece, ARRIVAL)
        assert decoder.held_bytes <= LIMITS.max_bytes + 4, "no more is kept than a message may have"
        assert decoder.is_mid_message or not decoder.held_bytes
    if found and found[-1].last:
        assert decoder.feed(b"{}\n", ARRIVAL) == []
    found += decoder.eof(ARRIVAL)
    assert [message.last for message in found[:-1]].count(True) == 0, "nothing follows what is the last"
    return outcomes(found)


@hypothesis_settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(CONVERSATIONS + SHORT), st.lists(faults, max_size=3), st.lists(st.integers(0, 2_000), max_size=5)
)
def test_pieces_make_no_difference(data: bytes, wrong: list[tuple[str, int, bytes]], between: list[int]) -> None:
    for kind, place, part in wrong:
        data = faulty(data, kind, place, part)
    whole = transcript([data])
    assert transcript(cut(data, between)) == whole
    assert transcript(single(data)) == whole


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.sampled_from(CONVERSATIONS), st.lists(faults, min_size=1, max_size=3))
def test_what_is_taken_can_be_stored(data: bytes, wrong: list[tuple[str, int, bytes]]) -> None:
    """A fault may make another record of one, but none that the stores couldn't hold."""
    for kind, place, part in wrong:
        data = faulty(data, kind, place, part)
    for message in feed(any_decoder(), [data]):
        for sent in message.records if isinstance(message, Received) else []:
            assert 1 <= len(sent.device_id) <= 255
            sent.device_id.encode()
            assert "\0" not in sent.device_id
            if sent.record.attributes is not None:
                assert isinstance(json.loads(sent.record.attributes), dict)
