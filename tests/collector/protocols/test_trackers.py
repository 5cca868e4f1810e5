"""Properties of all trackers' decoders: division into pieces makes no difference, and no bytes do harm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Received
from collector.framing.frame_decoder import Options
from telemetry.model.record import DECODE_ERRORS, decode, encode
from tests.collector.protocols.test_any_bytes import faults, faulty
from tests.collector.protocols.three_ways import ARRIVAL, cut, single
from tests.collector.protocols.trackers import TRACKERS, Tracker, conversation
from tests.collector.protocols.vectors import FOLDER, vectors

ALL = pytest.mark.parametrize("tracker", TRACKERS.values(), ids=TRACKERS)


@ALL
def test_each_frame_three_ways(tracker: Tracker) -> None:
    """Whole, byte by byte, and followed by the head of the next frame."""
    data = b"".join(tracker.frames)
    expected = conversation(tracker.make, [data])
    assert sum(len(message.records) for message in expected) >= 3
    assert any(message.aside for message in expected)
    assert not any(message.last for message in expected)
    assert conversation(tracker.make, tracker.frames) == expected
    assert conversation(tracker.make, single(data)) == expected
    for at in range(len(data)):
        assert conversation(tracker.make, [data[:at], data[at:]]) == expected


@ALL
def test_a_bad_frame_costs_only_itself(tracker: Tracker) -> None:
    """Frames after invalid ones are decoded as if the invalid ones had not come."""
    good = conversation(tracker.make, tracker.frames[-1:])
    outcomes = conversation(tracker.make, tracker.frames)
    assert outcomes[-1].records == good[-1].records
    assert outcomes[-1].records


@ALL
def test_nothing_is_heard_of_what_is_not_stored(tracker: Tracker) -> None:
    decoder = tracker.make(Options())
    messages = [*decoder.feed(b"".join(tracker.frames), ARRIVAL), *decoder.eof(ARRIVAL)]
    assert all(message.not_stored("busy") == b"" for message in messages if isinstance(message, Received))


@pytest.mark.parametrize("name", [name for name in TRACKERS if name != "teltonika"])  # whose start is a length
def test_a_frame_without_end_is_the_last(name: str) -> None:
    tracker = TRACKERS[name]
    decoder = tracker.make(Options(max_bytes=300))
    start = tracker.frames[0][:2] + b"7" * 400
    for piece in (start, b"more"):
        messages = decoder.feed(piece, ARRIVAL)
        if piece == start:
            [message] = messages
            assert message.last
            assert message.aside[0].raw == start[:301], "no more than a frame may have"
    assert messages == []
    assert decoder.held_bytes == 0
    assert decoder.eof(ARRIVAL) == []


@pytest.mark.parametrize("name", TRACKERS)
@hypothesis_settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    """With faults put in, a conversation means the same in any pieces, and all that is taken can be stored."""
    tracker = TRACKERS[name]
    frames = data.draw(st.lists(st.sampled_from(tracker.frames), min_size=1, max_size=4))
    sent = b"".join(frames)
    for kind, place, part in data.draw(st.lists(faults, max_size=3)):
        sent = faulty(sent, kind, place, part)
    expected = conversation(tracker.make, [sent])
    assert conversation(tracker.make, cut(sent, data.draw(st.lists(st.integers(0, 2_000), max_size=5)))) == expected
    assert conversation(tracker.make, single(sent)) == expected
    for message in expected:
        for device_id, record in message.records:
            assert 1 <= len(device_id) <= 255
            assert device_id.isascii()
            try:
                assert decode(encode(record)) == record
            except DECODE_ERRORS as error:  # pragma: no cover
                pytest.fail(str(error))


@pytest.mark.parametrize("name", TRACKERS)
@hypothesis_settings(max_examples=150, deadline=None)
@given(frame=st.binary(max_size=200), fields=st.lists(st.sampled_from(["", "0", "A", "N", "E", "99", "x" * 8, "-1.5"])))
def test_frames_of_noise(name: str, frame: bytes, fields: list[str]) -> None:
    """Inside a frame as well."""
    tracker = TRACKERS[name]
    for head in tracker.frames:
        conversation(tracker.make, [head[:20] + frame + head[-3:]])
        conversation(tracker.make, [b",".join([head[:-3], *(text.encode() for text in fields)]) + head[-3:]])


def test_every_attribute_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "attributes.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]+) \|", page, re.M)
    explained = {_numbered(name) for names in cells for name in re.findall(r"`(\w+)`", names)}
    for name, tracker in TRACKERS.items():
        frames = [[frame] for frame in tracker.frames]
        if (FOLDER / f"{name}.json").exists():
            frames += [vector.setup + vector.frames for vector in vectors(name)]
        for pieces in frames:
            for message in conversation(tracker.make, pieces):
                for _, record in message.records:
                    for attribute in json.loads(record.attributes or "{}"):
                        assert _numbered(attribute) in explained, f"{name}: {attribute}"


def _numbered(name: str) -> str:
    """The name of all that differ in their number."""
    return re.sub(r"\d+", "#", name)
