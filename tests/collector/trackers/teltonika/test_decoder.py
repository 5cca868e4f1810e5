"""Teltonika: handshake, packets of each codec, acks, rejected packets and records in quarantine."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.framing.decoder import Received, Rejected
from collector.framing.frame_decoder import Options
from collector.trackers.checksums import crc16_arc
from collector.trackers.teltonika.decoder import Teltonika
from collector.trackers.teltonika.io_elements import NAMES
from tests.collector.protocols.three_ways import ARRIVAL, answer, feed
from tests.collector.protocols.trackers import attributes, records
from tests.collector.protocols.vectors import Exceptions, Vector, differences, vectors

NO_CHECKSUM = "its length and checksum are wrong: no ack, and quarantine"
TAGS = "beacons are an array: tags"
EXCEPTIONS: Exceptions = {
    "teltonika_003_L25": dict.fromkeys([f"tag{n}{what}" for n in (1, 2) for what in ("Rssi", "Id", "Voltage")], TAGS),
    "teltonika_009_L45": {"io68": "has a name: battery_a"},
    "teltonika_012_L54": {"dtcs": "is an array"},
    "teltonika_015_L63": {"timestamp": "a command's response has none", "result": "without line breaks"},
    "teltonika_018_L72": {"io252": "is an alarm, and none is left out", "bleTemp1": "not of all models: io25"},
    "teltonika_024_L90": {"io9": "has a name: adc1_v"},
    "teltonika_027_L99": {"io72": "has a name: temperature_c"},
    "teltonika_033_L117": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "teltonika_036_L126": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "teltonika_042_L144": {"io68": "has a name: battery_a"},
}
"""Differences from the reference, and the reasons."""


@pytest.mark.parametrize("vector", vectors("teltonika"), ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    assert differences(vector, Teltonika, EXCEPTIONS) == []


IMEI = "356307042441013"
HELLO = b"\x00\x0f" + IMEI.encode()
AT_MS = 1_772_366_400_000  # 2026-03-01 12:00:00 UTC
NO_VALUES = bytes(6)


def packet(codec: int, *of_records: bytes, ends_with: int | None = None, crc: int | None = None) -> bytes:
    count = len(of_records)
    data = bytes((codec, count)) + b"".join(of_records) + bytes((count if ends_with is None else ends_with,))
    return bytes(4) + struct.pack(">I", len(data)) + data + struct.pack(">I", crc16_arc(data) if crc is None else crc)


def record(at_ms: int = AT_MS, satellites: int = 9, latitude: int = 410_082_000, values: bytes = NO_VALUES) -> bytes:
    return struct.pack(">QBiihHBH", at_ms, 1, 289_784_000, latitude, 35, 270, satellites, 36) + values


ONE = packet(8, record())
VALUES_8 = bytes(
    (0xEF, 4, 2, 0xEF, 1, 240, 0, 1, 66, *(12_650).to_bytes(2, "big"), 1, 16, *(1_234_567).to_bytes(4, "big"))
)
VALUES_8 += bytes(1)


def connected(*frames: bytes) -> Teltonika:
    decoder = Teltonika(Options())
    feed(decoder, [HELLO, *frames])
    return decoder


def test_a_device_names_itself_and_its_records_are_its_own() -> None:
    decoder = Teltonika(Options())
    hello, one = feed(decoder, [HELLO, ONE])
    assert answer(hello) == b"\x01"
    assert answer(one) == b"\x00\x00\x00\x01"
    assert isinstance(one, Received)
    assert [sent.device_id for sent in one.records] == [IMEI]
    (found,) = records([one])
    assert (found.latitude, found.longitude, found.altitude_m) == (41.0082, 28.9784, 35)
    assert (found.speed_kmh, found.heading_deg, found.timestamp_us) == (36, 270, AT_MS * 1_000)
    assert (found.transport, found.source, found.has_fix) == ("tcp", "teltonika", True)


def test_while_the_store_is_away_a_device_hears_nothing() -> None:
    (one,) = feed(connected(), [ONE])
    assert isinstance(one, Received)
    assert one.not_stored("Redis is away") == b""


def test_values_have_names_and_units() -> None:
    (found,) = records(feed(connected(), [packet(8, record(values=VALUES_8))]))
    assert attributes(found) == {
        "satellites": 9,
        "priority": 1,
        "event": 239,
        "ignition": True,
        "motion": False,
        "external_v": 12.65,
        "odometer_m": 1_234_567,
    }


def test_codec_8_extended_has_numbers_of_two_bytes_and_texts() -> None:
    values = struct.pack(">HHHHB", 0, 2, 1, 239, 1) + struct.pack(">H", 0) + struct.pack(">HHi", 1, 72, -105)
    values += (
        struct.pack(">H", 0) + struct.pack(">HHH", 2, 281, 5) + b"P0420" + struct.pack(">HH", 999, 2) + b"\xff\x01"
    )
    (found,) = records(feed(connected(), [packet(0x8E, record(values=values))]))
    assert attributes(found)["fault_codes"] == ["P0420"]
    assert attributes(found)["io999"] == "ff01"
    assert attributes(found)["temperature_c"] == -10.5
    assert attributes(found)["ignition"] is True


SIZES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def values_of(number: int, value: int, size_bytes: int) -> bytes:
    """The values of a record of codec 8 extended that has one."""
    found = struct.pack(">HH", 0, 1)
    for size, layout in SIZES.items():
        found += struct.pack(f">HH{layout}", 1, number, value) if size == size_bytes else bytes(2)
    return found + bytes(2)


def of_value(number: int, value: int, size_bytes: int) -> dict[str, object]:
    (found,) = records(feed(connected(), [packet(0x8E, record(values=values_of(number, value, size_bytes)))]))
    values = attributes(found)
    assert (values.pop("satellites"), values.pop("priority")) == (9, 1)
    return values


@pytest.mark.parametrize(
    ("value", "size_bytes", "expected"),
    [
        (0, 1, {"battery_percent": 0}),
        (100, 1, {"battery_percent": 100}),
        (101, 1, {"io113": 101}),
        (4_294_806_661, 4, {"io113": 4_294_806_661}),
        (80, 2, {"io113": 80}),
    ],
)
def test_a_percentage_is_one_byte_and_at_most_100(value: int, size_bytes: int, expected: dict[str, object]) -> None:
    assert of_value(113, value, size_bytes) == expected


@pytest.mark.parametrize("number", sorted(NAMES))
def test_a_value_of_more_bytes_than_its_name_has_none(number: int) -> None:
    name, max_bytes, _ = NAMES[number]
    for size_bytes in SIZES:
        expected = {name} if size_bytes <= max_bytes else {f"io{number}"}
        assert set(of_value(number, 1, size_bytes)) == expected


def test_codec_16_has_a_byte_more_and_counts_of_one() -> None:
    values = struct.pack(">HBB", 239, 7, 1) + struct.pack(">BHB", 1, 239, 0) + bytes(3)
    (found,) = records(feed(connected(), [packet(0x10, record(values=values))]))
    assert attributes(found) == {"satellites": 9, "priority": 1, "event": 239, "ignition": False}


def test_without_satellites_coordinates_are_kept_and_no_fix() -> None:
    (found,) = records(feed(connected(), [packet(8, record(satellites=0))]))
    assert (found.latitude, found.has_fix) == (41.0082, False)
    assert attributes(found)["fix"] is False


def test_a_sign_of_life_is_not_answered_and_breaks_nothing() -> None:
    decoder = Teltonika(Options())
    hello, one = feed(decoder, [b"\xff", HELLO, b"\xff\xff", ONE, b"\xff"])
    assert (answer(hello), answer(one)) == (b"\x01", b"\x00\x00\x00\x01")
    assert not decoder.is_mid_message


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (packet(8, record(), crc=0x1234), "the checksum is"),
        (packet(8, record(), ends_with=2), "1 records at its head, 2 at its end"),
        (packet(9, record()), "codec 09"),
        (packet(0x10, record(values=bytes(9)) + b"\x00"), "its records end after"),
        (packet(8, record()[:-4]), "its records are longer than the packet"),
        (packet(0x8E, record(values=bytes(12) + struct.pack(">HHH", 1, 281, 50) + b"P0420")), "longer than its packet"),
    ],
    ids=["checksum", "counts", "codec", "too long", "too short", "text"],
)
def test_a_broken_packet_gets_no_ack_is_set_aside_and_costs_only_itself(frame: bytes, why: str) -> None:
    decoder = connected()
    bad, good = feed(decoder, [frame, ONE])
    assert isinstance(bad, Rejected)
    assert why in bad.reason
    assert (bad.answer, bad.last) == (b"", False)
    assert [(aside.device_id, aside.raw) for aside in bad.aside] == [(IMEI, frame)]
    assert answer(good) == b"\x00\x00\x00\x01"


def test_a_record_that_can_never_be_taken_is_set_aside_and_the_packet_acked_whole() -> None:
    unset = record(at_ms=0)
    (one,) = feed(connected(), [packet(8, record(), unset, record(at_ms=AT_MS + 1_000))])
    assert isinstance(one, Received)
    assert answer(one) == b"\x00\x00\x00\x03"
    assert len(one.records) == 2
    (aside,) = one.aside
    assert aside.raw == unset
    assert "2000-01-01" in aside.reason


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x01", bytes(4) + b"\xff\xff\xff\xff"])
def test_out_of_step_ends_the_connection(start: bytes) -> None:
    decoder = connected()
    (bad,) = feed(decoder, [start])
    assert bad.last
    assert feed(decoder, [ONE]) == []


def test_records_before_the_name_are_refused() -> None:
    bad, hello, good = feed(Teltonika(Options()), [ONE, HELLO, ONE])
    assert isinstance(bad, Rejected)
    assert (answer(hello), answer(good)) == (b"\x01", b"\x00\x00\x00\x01")


def test_a_name_that_is_none_is_refused() -> None:
    (bad,) = feed(Teltonika(Options()), [b"\x00\x0f" + b"35630704244101X"])
    assert (answer(bad), bad.last) == (b"\x00", True)


@pytest.mark.parametrize(("codec", "before"), [(0x0C, b""), (0x0D, b"\x69\xa4\x00\x00"), (0x0E, bytes(8))])
def test_an_answer_to_a_command_is_kept_and_not_acked(codec: int, before: bytes) -> None:
    text = before + b"Data Link: 1\r\n"
    data = bytes((codec, 1, 6)) + struct.pack(">I", len(text)) + text + b"\x01"
    frame = bytes(4) + struct.pack(">I", len(data)) + data + struct.pack(">I", crc16_arc(data))
    (one,) = feed(connected(), [frame])
    assert answer(one) == b""
    (found,) = records([one])
    assert attributes(found) == {"result": "Data Link: 1"}
    assert found.latitude is None


def test_an_answer_that_is_a_part_of_a_photo_is_not_kept() -> None:
    data = bytes((0x0C, 1, 0x0D)) + struct.pack(">I", 5) + b"\x01\x59\x84\x93\xed" + b"\x01"
    frame = bytes(4) + struct.pack(">I", len(data)) + data + struct.pack(">I", crc16_arc(data))
    (one,) = feed(connected(), [frame])
    assert (records([one]), answer(one)) == ([], b"")


def test_a_serial_line_with_its_time() -> None:
    text = struct.pack(">I", AT_MS // 1_000) + bytes(8) + b"Hello!\n"
    data = bytes((0x0F, 1, 0x0B)) + struct.pack(">I", len(text)) + text + b"\x01"
    frame = bytes(4) + struct.pack(">I", len(data)) + data + struct.pack(">I", crc16_arc(data))
    (found,) = records(feed(connected(), [frame]))
    assert (attributes(found), found.timestamp_us) == ({"result": "Hello!"}, AT_MS * 1_000)


def test_a_driver_s_card_on_the_serial_line() -> None:
    text = struct.pack(">I", AT_MS // 1_000) + b"GTSL|6|1|0|12749884|1|\r\n"
    data = bytes((0x0D, 1, 6)) + struct.pack(">I", len(text)) + text + b"\x01"
    frame = bytes(4) + struct.pack(">I", len(data)) + data + struct.pack(">I", crc16_arc(data))
    (found,) = records(feed(connected(), [frame]))
    assert (attributes(found), found.timestamp_us) == ({"driver_id": "12749884"}, AT_MS * 1_000)


def test_values_of_16_bytes_of_some_models() -> None:
    longest = NO_VALUES + b"\x01\x80" + bytes(range(16))
    (one,) = feed(connected(), [packet(8, record(), record(values=longest))])
    assert isinstance(one, Rejected)  # a packet is of one form
    (one,) = feed(connected(), [packet(8, record(values=NO_VALUES + b"\x00"), record(values=longest))])
    _, found = records([one])
    assert attributes(found) == {"satellites": 9, "priority": 1, "io128": bytes(range(16)).hex()}


def test_codec_7_tells_which_parts_it_has() -> None:
    seconds = AT_MS // 1_000 - 1_167_609_600
    head = struct.pack(">IB", 1 << 30 | seconds, 0x0F)
    place = struct.pack(">BffHBBBHHBI", 0xFF, 41.0082, 28.9784, 35, 192, 36, 9, 0x1234, 0xABCD, 21, 28601)
    values = bytes((3, 1, 94, 222, 1, 240, 0)) + b"\x02\x43\x0f\xb2\x14\x00\x0a" + b"\x01\x05" + bytes((0, 0, 12, 228))
    bare = struct.pack(">IB", seconds, 0)
    (one,) = feed(connected(), [packet(7, head + place + values, bare)])
    full, empty = records([one])
    assert (round(full.latitude or 0, 5), round(full.longitude or 0, 5)) == (41.0082, 28.9784)
    assert (full.altitude_m, full.heading_deg, full.speed_kmh, full.timestamp_us) == (35, 270, 36, AT_MS * 1_000)
    assert attributes(full) == {
        "priority": 1,
        "satellites": 9,
        "gsm_signal": 21,
        "operator": 28601,
        "cells": [{"mcc": 286, "mnc": 1, "lac": 0x1234, "cid": 0xABCD}],
        "battery_percent": 94,
        "alarm": "sos",
        "motion": False,
        "battery_v": 4.018,
        "hdop": 1.0,
        "io5": 3300,
    }
    assert (empty.latitude, attributes(empty), answer(one)) == (None, {"priority": 0}, b"\x00\x00\x00\x02")


@pytest.mark.parametrize("number", [1, 20, 22, 67, 222, 240])
def test_a_value_of_codec_7_of_more_bytes_than_its_name_has_none(number: int) -> None:
    values = b"\x01" + bytes((number,)) + (4_294_806_661).to_bytes(4, "big")
    (one,) = feed(connected(), [packet(7, struct.pack(">IB", AT_MS // 1_000 - 1_167_609_600, 0x08) + values)])
    (found,) = records([one])
    assert attributes(found) == {"priority": 0, f"io{number}": 4_294_806_661}


def named_text(number: int, value: bytes) -> dict[str, object]:
    (one,) = feed(
        connected(), [packet(0x8E, record(values=bytes(12) + struct.pack(">HHH", 1, number, len(value)) + value))]
    )
    (found,) = records([one])
    return attributes(found)


def test_tags_and_beacons_around() -> None:
    tag = bytes.fromhex("0001c8 0102abcd 020280 6d 0503457965 0602f63c 070137 080101 0d0100 0f06010203040506 2a0107")
    assert named_text(548, b"\x01" + bytes((len(tag),)) + tag)["tags"] == [
        {
            "level": -56,
            "id": "abcd",
            "battery_v": 3.09,
            "name": "Eye",
            "temperature_c": -25,
            "humidity_percent": 55,
            "magnet": True,
            "low_battery": False,
            "mac": "01:02:03:04:05:06",
        }
    ]
    beacon = bytes.fromhex("11 21" + "ab" * 20 + "d0" + "07" + "cd" * 16 + "c8 012c fff6")
    assert named_text(385, beacon)["tags"] == [
        {"id": "ab" * 20, "level": -48},
        {"id": "cd" * 16, "level": -56, "battery_v": 3.0, "temperature_c": -10},
    ]
    assert named_text(548, b"\x01\x05\x00")["io548"] == "010500"
    assert named_text(385, b"\x11\x21\x00")["io385"] == "112100"


def datagram(imei: str = IMEI, number: int = 5, at_ms: int = AT_MS) -> bytes:
    body = packet(8, record(at_ms))[8:-4]
    rest = b"\xca\xfe\x01" + bytes((number, 0, len(imei))) + imei.encode() + body
    return struct.pack(">H", len(rest)) + rest


def test_a_datagram_is_a_packet_and_acked_by_its_number() -> None:
    (one,) = Teltonika(Options(transport="udp")).datagram(datagram(), ARRIVAL)
    assert answer(one) == bytes.fromhex("00050000010501")
    assert isinstance(one, Received)
    assert [(sent.device_id, sent.record.transport) for sent in one.records] == [(IMEI, "udp")]


@pytest.mark.parametrize("data", [b"", b"\x00", datagram()[:-1], datagram("35630704244101X"), datagram()[:30]])
def test_a_datagram_that_is_none_is_not_answered(data: bytes) -> None:
    (one,) = Teltonika(Options()).datagram(data, ARRIVAL)
    assert isinstance(one, Rejected)
    assert one.answer == b""


@settings(max_examples=500, deadline=None)
@given(
    codec=st.sampled_from([7, 8, 0x8E, 0x10, 0x0C, 0x0D, 0x0E, 0x0F]),
    count=st.integers(0, 3),
    body=st.one_of(st.binary(max_size=120), st.binary(max_size=100).map(lambda more: record() + more)),
)
def test_any_packet_with_a_right_checksum_is_taken_or_refused(codec: int, count: int, body: bytes) -> None:
    data = bytes((codec, count)) + body + bytes((count,))
    frame = bytes(4) + struct.pack(">I", len(data)) + data + struct.pack(">I", crc16_arc(data))
    *_, good = feed(connected(), [frame, ONE])
    assert answer(good) == b"\x00\x00\x00\x01"


@settings(max_examples=300, deadline=None)
@given(number=st.sampled_from([385, 548, 10829, 11317, 256, 281, 999]), value=st.binary(max_size=80))
def test_any_value_of_any_length_is_taken(number: int, value: bytes) -> None:
    assert named_text(number, value)["satellites"] == 9
