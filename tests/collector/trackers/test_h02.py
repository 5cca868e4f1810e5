"""H02: text and binary frames, replies, incomplete dates, and the end of binary frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Received, Rejected
from collector.framing.frame_decoder import Options
from collector.trackers.h02 import H02
from telemetry.codec.record_parser import Arrival
from tests.collector.protocols.three_ways import ARRIVAL, NOW_US, single
from tests.collector.protocols.trackers import attributes, conversation, moment, only, outcomes, record_of
from tests.collector.protocols.vectors import Exceptions, Vector, differences, vectors

EXCEPTIONS: Exceptions = {
    "h02_016_L64": {"records": "a frame without coordinates has its device's state", "responses": "and is stored"},
    "h02_020_L76": {"records": "a frame of unknown meaning is kept raw"},
}
SHORT = bytes.fromhex("2441060116601245431311165035313006004318210e000000fffffbffff0024")
LONG = bytes.fromhex("2442061191301024031101175540227006012321670c000095fffffbffff001f00000001f800ee010000000032")
TEXT = b"*HQ,4106012736,V1,120000,A,4100.4920,N,02858.7040,E,019.44,270,010326,FFFFFBFF#"
ANSWER = b"*HQ,4106012736,V4,V1,20261124060000#"


@pytest.mark.parametrize("vector", vectors("h02"), ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    assert differences(vector, H02, EXCEPTIONS) == []


def test_a_position() -> None:
    record = record_of(H02, TEXT)
    assert (record.source, record.transport) == ("h02", "tcp")
    assert record.timestamp_us == moment(2026, 3, 1, 12)
    assert record.latitude == pytest.approx(41.0082)
    assert record.longitude == pytest.approx(28.9784)
    assert record.speed_kmh == pytest.approx(19.44 * 1.852)
    assert record_of(H02, TEXT, speed_unit="kmh").speed_kmh == 19.44
    assert record_of(H02, TEXT, transport="udp").transport == "udp"


# Answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (TEXT, ANSWER),
        (b"*HQ,1451316485,V0#", b"*HQ,1451316485,V0#"),
        (b"*ZJ,1451316485,HTBT,50#", b"*ZJ,1451316485,HTBT#"),
        (TEXT.replace(b"V1", b"V5"), b""),
        (SHORT, b""),
    ],
)
def test_answers(frame: bytes, answer: bytes) -> None:
    message = only(H02, frame)
    assert isinstance(message, Received)
    assert message.stored == answer
    assert message.not_stored("busy") == b""
    all_answered = only(H02, frame, answers_all=True)
    assert isinstance(all_answered, Received)
    assert all_answered.stored == (answer or all_answered.stored)
    assert answer or all_answered.stored.endswith(b",R12,060000#")


def test_a_record_that_can_never_be_taken_does_not_block_its_device() -> None:
    """It is answered, as the device would send it for ever, and set aside."""
    frame = TEXT.replace(b"010326", b"000000")
    message = only(H02, frame)
    assert isinstance(message, Received)
    assert (message.records, message.stored) == ([], ANSWER)
    assert message.aside[0].raw == frame
    assert message.aside[0].device_id == "4106012736"
    assert isinstance(only(H02, frame.replace(b"V1", b"V5")), Rejected), "no answer is due"
    binary = SHORT.replace(bytes.fromhex("131116"), bytes.fromhex("000000"))
    assert isinstance(only(H02, binary), Rejected)
    assert isinstance(only(H02, binary, answers_all=True), Received)


@pytest.mark.parametrize(
    "frame",
    [
        b"*HQ,4106012736,V1,nothing#",
        TEXT.replace(b"4100.4920", b"4160.0000"),
        TEXT.replace(b"4100.4920", b"4x00.4920"),
        TEXT.replace(b"019.44", b"fast"),
        TEXT.replace(b"4106012736", b"41-06"),
        TEXT.replace(b"V1", b"V\xc4"),
        b"*HQ,1600068860,NBR,110326,262,03,255,6,802,23152,23,081116,FFFFFBFF#",
        SHORT[:6] + b"\xff" + SHORT[7:],
        SHORT[:3] + b"\xff" + SHORT[4:],
    ],
)
def test_a_broken_frame_is_not_answered(frame: bytes) -> None:
    message = only(H02, frame)
    assert isinstance(message, Rejected)
    assert message.answer == b""
    assert message.aside[0].raw == frame
    assert not message.last


# Text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "now", "expected"),
    [
        ("120000", (2026, 11, 24, 12, 5), (2026, 11, 24, 12)),
        ("235958", (2026, 11, 24, 0, 1), (2026, 11, 23, 23, 59, 58)),
        ("000002", (2026, 11, 23, 23, 59), (2026, 11, 24, 0, 0, 2)),
        ("", (2026, 11, 24, 7), (2026, 11, 24, 7)),
    ],
)
def test_a_time_without_a_date_is_the_one_nearest_to_arrival(
    clock: str, now: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    frame = TEXT.replace(b"120000", clock.encode()).replace(b"010326", b"")
    assert record_of(H02, frame, Arrival(moment(*now))).timestamp_us == moment(*expected)


def test_dates() -> None:
    assert record_of(H02, TEXT.replace(b"010326", b"311299"), Arrival(NOW_US)).timestamp_us == moment(2099, 12, 31, 12)
    for date in (b"320126", b"000000", b"010027", b"01x127"):
        message = only(H02, TEXT.replace(b"010326", date))
        assert isinstance(message, Received | Rejected)
        assert not getattr(message, "records", [])
    too_late = only(H02, TEXT.replace(b"010326", b"010327"))
    assert isinstance(too_late, Received)
    assert "too far ahead" in too_late.aside[0].reason


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (b"4100.4920,N,02858.7040,E", (41.0082, 28.9784)),
        (b"4100.4920,S,02858.7040,W", (-41.0082, -28.9784)),
        (b"41004920,N,028587040,E", (41.0082, 28.9784)),
        (b"-41-00.4920,S,-28-58.7040,W", (-41.0082, -28.9784)),
        (b"0.4920,N,8.7040,E", (0.0082, 0.1450667)),
    ],
)
def test_ways_to_write_degrees(place: bytes, expected: tuple[float, float]) -> None:
    record = record_of(H02, TEXT.replace(b"4100.4920,N,02858.7040,E", place))
    assert (record.latitude, record.longitude) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("frame", "has_fix"),
    [
        (TEXT, True),
        (TEXT.replace(b",A,", b",V,"), False),
        (TEXT.replace(b",A,", b",B,"), False),
        (TEXT.replace(b"4100.4920,N,02858.7040", b"0000.0000,N,00000.0000"), False),
    ],
)
def test_what_is_no_fix_is_kept(frame: bytes, has_fix: bool) -> None:
    record = record_of(H02, frame)
    assert record.latitude is not None
    assert record.has_fix == has_fix


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (b"FFFFFFFF", {"ignition": True}),
        (b"FFFFFBFF", {"ignition": False}),
        (b"FFFFFFFE", {"ignition": True, "alarm": "vibration"}),
        (b"FFFFFFFD", {"ignition": True, "alarm": "sos"}),
        (b"FFFBFFFF", {"ignition": True, "alarm": "sos"}),
        (b"FFFFFFFB", {"ignition": True, "alarm": "overspeed"}),
        (b"FFF7FFFF", {"ignition": True, "alarm": "power_cut"}),
    ],
)
def test_bits_of_the_status_are_active_when_0(status: bytes, expected: dict[str, object]) -> None:
    record = record_of(H02, TEXT.replace(b"FFFFFBFF", status))
    assert attributes(record) == {**expected, "status": int(status, 16)}


def test_what_stands_behind_the_status() -> None:
    measured = record_of(H02, TEXT.replace(b"FFFFFBFF", b"FFFFFBFF,7100,-5,12.50,800,1A2B,c3d4"))
    found = attributes(measured)
    assert measured.altitude_m == 800
    assert found["odometer_m"] == 7100
    assert found["temperature_c"] == -5
    assert found["fuel"] == 12.5
    assert found["cells"] == [{"lac": 0x1A2B, "cid": 0xC3D4}]
    sim = attributes(record_of(H02, TEXT.replace(b"V1", b"V19").replace(b"010326,", b"010326,195,x,8986011,")))
    assert sim == {"ignition": False, "status": 0xFFFFFBFF, "io1": "195", "io2": "x", "io3": "8986011"}


def test_cells_without_a_fix() -> None:
    short = record_of(H02, b"*hq,356327080425330,VP1,V,470,002,92,3565,0Y92,19433,30Y92,1340,29#")
    assert attributes(short)["cells"][1] == {"mcc": 470, "mnc": 2, "lac": 92, "cid": 19433, "level": 30}
    serving = record_of(H02, b"*HQ,4106012736,V3,044855,28403,01,001450,011473,158,-62,0292,0,X,030817,FFFFFBFF#")
    assert serving.timestamp_us == moment(2017, 8, 3, 4, 48, 55)
    assert attributes(serving) == {
        "cells": [{"mcc": 284, "mnc": 3, "lac": 1450, "cid": 11473, "level": -62}],
        "ignition": False,
        "status": 0xFFFFFBFF,
        "io1": "0292",
        "io2": "0",
    }


def test_a_short_position_has_a_date_alone() -> None:
    frame = b"*hq,356327080425330,VP1,A,2702.7215,S,15251.9309,E,0.62,0.0000,050917#"
    assert record_of(H02, frame).timestamp_us == moment(2017, 9, 5), "kept by the device: the start of its day"
    live = Arrival(moment(2017, 9, 5, 13, 14))
    assert record_of(H02, frame, live).timestamp_us == live.now_us


def test_one_connection_speaks_for_several_devices() -> None:
    found = conversation(H02, [TEXT + TEXT.replace(b"4106012736", b"4106012737") + b"*HQ,4106012738,V5,x,#"])
    assert [message.aside or message.records[0][0] for message in found] == [
        "4106012736",
        "4106012737",
        [("4106012738", b"*HQ,4106012738,V5,x,#")],
    ]


# Binary ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [SHORT, LONG, SHORT + b"\x01" * 16], ids=["32", "45", "48"])
def test_a_binary_frame_ends_where_the_next_begins(frame: bytes) -> None:
    for after in (frame, SHORT, TEXT):
        data = frame + after
        first = conversation(H02, [data])[0]
        assert first == conversation(H02, [frame])[0]
        assert conversation(H02, single(data))[0] == first


@pytest.mark.parametrize("frame", [SHORT, LONG], ids=["32", "45"])
def test_or_with_silence(frame: bytes) -> None:
    decoder = H02(Options())
    assert decoder.feed(frame, ARRIVAL) == []
    assert decoder.waits_for_quiet
    first = outcomes(decoder.quiet(ARRIVAL))
    assert first[0].records
    assert not decoder.waits_for_quiet
    assert outcomes(decoder.feed(frame, ARRIVAL)) == first, "its length is known by then"
    assert not decoder.is_mid_message


def test_the_length_of_the_first_is_that_of_the_others() -> None:
    decoder = H02(Options())
    assert len(decoder.feed(SHORT + SHORT, ARRIVAL)) == 2, "the first one ends at the head of the second"
    assert len(decoder.feed(SHORT, ARRIVAL)) == 1


def test_silence_within_a_frame_means_nothing() -> None:
    decoder = H02(Options())
    for piece in (SHORT[:20], TEXT[:30]):
        decoder.feed(piece, ARRIVAL)
        assert not decoder.waits_for_quiet
        assert decoder.quiet(ARRIVAL) == []
        decoder.eof(ARRIVAL)
        decoder = H02(Options())


def test_frames_that_become_longer_are_found_again() -> None:
    found = conversation(H02, [SHORT + SHORT + LONG + LONG + TEXT])
    assert [bool(message.records) for message in found] == [True] * 5
    assert found[3] == conversation(H02, [LONG])[0]


def test_a_long_id() -> None:
    frame = SHORT[:1] + bytes.fromhex("8657060516633930") + SHORT[6:] + b"\x00" * 8
    [message] = conversation(H02, [frame])
    assert message.records[0][0] == "865706051663393"
    assert message.records[0][1].latitude == pytest.approx(50.58855)


def test_an_x_is_passed_over() -> None:
    found = conversation(H02, [b"X" + b"\x01" * 44 + TEXT + b"X\x01" + TEXT])
    assert [bool(message.records) for message in found] == [False, True, False, True]


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 89),
    st.integers(0, 599_999),
    st.integers(0, 179),
    st.integers(0, 599_999),
    st.integers(0, 15),
    st.integers(0, 999),
    st.integers(0, 359),
)
def test_binary_numbers(lat: int, lat_min: int, lon: int, lon_min: int, flags: int, speed: int, course: int) -> None:
    digits = f"4106011660124543131116{lat:02}{lat_min:06}06{lon:03}{lon_min:06}{flags:x}{speed:03}{course:03}"
    record = record_of(H02, b"$" + bytes.fromhex(digits + "fffffbff") + b"\x00" * 3)
    assert record.latitude == pytest.approx((lat + lat_min / 600_000) * (1 if flags & 4 else -1))
    assert record.longitude == pytest.approx((lon + lon_min / 600_000) * (1 if flags & 8 else -1))
    assert record.has_fix == (bool(flags & 2) and (record.latitude, record.longitude) != (0, 0))
    assert record.speed_kmh == pytest.approx(speed * 1.852)
    assert record.heading_deg == course


def test_a_long_id_is_known_by_the_date_behind_it() -> None:
    frame = bytes.fromhex(
        "243563070424410137120000010326410049200602858704" + "0e019270" + "ffffffff" + "01120064ba73005ecc"
    )
    record = record_of(H02, frame)
    assert only(H02, frame).records[0].device_id == "356307042441013"  # type: ignore[union-attr]
    assert record.timestamp_us == moment(2026, 3, 1, 12)
    assert (round(record.latitude or 0, 4), round(record.longitude or 0, 4)) == (41.0082, 28.9784)


def test_a_number_in_place_of_the_validity_is_a_fix() -> None:
    record = record_of(H02, b"*HQ,353505221264507,V2,120000,0,4100.4920,N,02858.7040,E,0.25,0,010326,FFFFFFFF,cc,28#")
    assert record.has_fix


def test_before_the_first_fix_it_is_a_sign_of_life_and_answered() -> None:
    frame = b"*HQ,353588020068342,V1,000000,V,0.0000,0,0.0000,0,0.00,0.00,000000,ffffffff,000106,000002#"
    message = only(H02, frame)
    assert isinstance(message, Received)
    assert message.stored.startswith(b"*HQ,353588020068342,V4,V1,")
    record = message.records[0].record
    assert (record.latitude, record.timestamp_us, attributes(record)["io1"]) == (None, NOW_US, "000106")


def test_frames_without_a_command_or_an_id() -> None:
    decoder = H02(Options())
    [nameless, alive, again] = decoder.feed(
        TEXT.replace(b"4106012736", b"") + b"*HQ,4106012736,#" + TEXT.replace(b"4106012736", b""), ARRIVAL
    )
    assert isinstance(nameless, Rejected)
    assert isinstance(alive, Received)
    assert isinstance(again, Received)
    assert (alive.records, [sent.device_id for sent in again.records]) == ([], ["4106012736"])


def test_a_short_message_of_several_lines_is_kept() -> None:
    record = record_of(H02, b"*HQ,5226073533,SMS,ST906_V_2.0 2024/06/07\nVOLT:12.9V\r\nGPS:A,24#")
    assert attributes(record) == {"result": "ST906_V_2.0 2024/06/07\nVOLT:12.9V\nGPS:A,24"}
