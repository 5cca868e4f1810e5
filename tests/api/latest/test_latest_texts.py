"""JSON of large latest records: the same as in one piece, with each record in memory once."""

from __future__ import annotations

import msgspec
import pytest

from api.latest.latest_texts import LARGE_BYTES, SharedTexts, size_of, texts_of
from api.latest.representation import answer_of
from api.responses.record_schema import encode
from telemetry.hot_store.entry_codec import Latest, Slot
from telemetry.model.record import Record
from telemetry.model.record import encode as encode_record

AT_US = 1_769_250_300_000_000
BIG = '{"text":"' + "ü" * LARGE_BYTES + '"}'


def slot(number: int, attributes: str, fix: bool = True) -> Slot:
    latitude, longitude = (1.0, 2.0) if fix else (None, None)
    record = Record(AT_US + number, "http", "json", latitude, longitude, attributes=attributes)
    return Slot(number, number, number, fix, encode_record(record))


def value(latest: Latest) -> bytes:
    return msgspec.msgpack.encode(latest)


VALUES = {
    "small": value(Latest(slot(1, "{}"), None, 0, 5)),
    "position is the newest": value(Latest(slot(1, BIG), None, 0, 5)),
    "no position": value(Latest(slot(1, BIG, fix=False), None, None, 5)),
    "another position": value(Latest(slot(2, BIG, fix=False), None, slot(1, BIG), 5_500)),
    "of another transport": value(Latest(slot(1, BIG), slot(2, BIG, fix=False), 0, 5)),
}


@pytest.mark.parametrize("name", VALUES)
def test_texts_equal_the_json(name: str) -> None:
    assert b"".join(texts_of("a/ü", VALUES[name])) == encode(answer_of("a/ü", VALUES[name]))


def test_a_record_that_occurs_twice_is_in_memory_once() -> None:
    found = VALUES["position is the newest"]
    assert size_of(texts_of("a", found)) < len(found) + 1_000


def test_requests_for_the_same_value_share_texts() -> None:
    shared = SharedTexts(3 * len(BIG.encode()))
    first = shared.of("a", VALUES["position is the newest"])
    assert shared.of("a", bytes(bytearray(VALUES["position is the newest"]))) is first
    assert shared.of("b", VALUES["position is the newest"]) is not first
    for name in ("c", "d", "e"):
        shared.of(name, VALUES["position is the newest"])
    assert shared.of("a", VALUES["position is the newest"]) is not first, "the oldest were dropped"
    assert shared._bytes <= 3 * len(BIG.encode())
