"""Teltonika: handshake, packets of each codec, acks, and what is refused or set aside."""

from __future__ import annotations

import struct

import pytest

from collector.protocols.checksums import crc16_arc
from collector.protocols.contract import Received, Rejected
from collector.protocols.framed import Options
from collector.protocols.teltonika import Teltonika
from tests.collector.protocols.three_ways import ARRIVAL, answer, feed
from tests.collector.protocols.trackers import attributes, records
from tests.collector.protocols.vectors import Exceptions, Vector, differences, vectors

NO_CHECKSUM = "its length and checksum are wrong: no ack, and quarantine"
TAGS = "beacons are kept raw, as io548"
EXCEPTIONS: Exceptions = {
    "teltonika_003_L25": dict.fromkeys([f"tag{n}{what}" for n in (1, 2) for what in ("Rssi", "Id", "Voltage")], TAGS),
    "teltonika_009_L45": {"io68": "has a name: battery_a"},
    "teltonika_012_L54": {"dtcs": "is an array"},
    "teltonika_015_L63": {"timestamp": "that of a command's answer is none", "result": "a line break is no part of it"},
    "teltonika_018_L72": {"io252": "is an alarm, and none is left out", "bleTemp1": "not of all models: io25"},
    "teltonika_024_L90": {"io9": "has a name: adc1_v"},
    "teltonika_027_L99": {"io72": "has a name: temperature_c"},
    "teltonika_033_L117": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "teltonika_036_L126": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "teltonika_042_L144": {"io68": "has a name: battery_a"},
    "teltonika_045_L158": dict.fromkeys(("records", "responses"), "a form of one model that must be told of"),
}
"""What is not as the reference has it, and why."""


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
        (packet(7, record()), "codec 07"),
        (packet(8, record() + b"\x00"), "its records end after"),
        (packet(8, record()[:-4]), "its records are longer than it is"),
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


def datagram(imei: str = IMEI, number: int = 5) -> bytes:
    rest = b"\xca\xfe\x01" + bytes((number, 0, len(imei))) + imei.encode() + ONE[8:-4]
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
