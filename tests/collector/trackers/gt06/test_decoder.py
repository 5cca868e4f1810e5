"""GT06: login, positions, states, acks, time zones, and malformed frames."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.framing.decoder import Received, Rejected
from collector.framing.frame_decoder import Options
from collector.trackers.gt06.decoder import LONG, Gt06, framed
from telemetry.model.record import Record
from tests.collector.protocols.three_ways import NOW_US, answer, feed
from tests.collector.protocols.trackers import attributes, records
from tests.collector.protocols.vectors import Exceptions, Vector, differences, vectors

NO_CHECKSUM = "its length or checksum is wrong: no ack, and quarantine"
RAW = "of few models: kept raw"
TAGS = "tags are an array"
SWAPPED = "the reference takes the supply for the battery: 14.28 V and 4.19 V"
X1 = {**dict.fromkeys(("battery", "power"), SWAPPED), **dict.fromkeys(("input", "output", "adc1", "adc2"), RAW)}
EXCEPTIONS: Exceptions = {
    "gt06_005_L32": dict.fromkeys(
        [f"tag1{what}" for what in ("Id", "Battery", "BatteryLevel", "Temp", "Humidity", "Status")], TAGS
    ),
    "gt06_015_L67": dict.fromkeys(("mac", "dataType", "dataDetails"), TAGS),
    "gt06_020_L85": dict.fromkeys(
        ("altitude_m", "status", "charge", "rssi", "cells"),
        "its cell has ten bytes: a state follows, and 687 m, not -31,703",
    ),
    "gt06_035_L142": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "gt06_040_L161": {"power": "it is the device's own battery: battery_v"},
    "gt06_045_L180": {"serial": "is stored as info"},
    "gt06_060_L231": {"timestamp": "the reference takes binary numbers for decimal digits"},
    "gt06_065_L248": {"alarm": "one, the one that the frame names"},
    "gt06_070_L266": {"records": NO_CHECKSUM},
    "gt06_080_L300": X1,
    "gt06_100_L360": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "gt06_105_L375": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "gt06_115_L405": {"records": NO_CHECKSUM},
    "gt06_120_L420": X1,
    "gt06_130_L450": {"fuel": "its unit is unknown: fuel"},
    "gt06_135_L465": {"alarm": "one"},
    "gt06_145_L496": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "gt06_155_L526": {"responses": NO_CHECKSUM},
    "gt06_160_L541": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "gt06_165_L557": dict.fromkeys(("records", "responses"), NO_CHECKSUM),
    "gt06_170_L579": {"alarm": "of a model that the frame does not show"},
    "gt06_175_L607": dict.fromkeys(("odometer", "cells"), "0 in the only sample"),
}
"""Differences from the reference, and the reasons."""


@pytest.mark.parametrize("vector", vectors("gt06"), ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    assert differences(vector, Gt06, EXCEPTIONS) == []


IMEI = "356307042441013"
NAME = bytes.fromhex("0" + IMEI)
SERIAL = b"\x00\x07"
LOGIN = framed(0x01, NAME + b"\x00\x36", b"\x00\x01")
CLOCK = bytes((26, 3, 1, 12, 0, 0))
NOON_US = 1_772_366_400_000_000
CELL = bytes.fromhex("011e01123400abcd")
CELL_FOUND = [{"mcc": 286, "mnc": 1, "lac": 4660, "cid": 43981}]


def place(clock: bytes = CLOCK, bits: int = 0x150E, latitude: int = 73_814_760, longitude: int = 52_161_120) -> bytes:
    return clock + struct.pack(">BIIBH", 0xC9, latitude, longitude, 36, bits)


def said(kind: int, body: bytes, login: bytes = LOGIN) -> tuple[Record, bytes]:
    decoder = Gt06(Options())
    _, message = feed(decoder, [login, framed(kind, body, SERIAL)])
    (found,) = records([message])
    return found, answer(message)


LOCATION = framed(0x12, place() + CELL, SERIAL)


def test_login_is_answered_and_names_the_device() -> None:
    decoder = Gt06(Options())
    login, location = feed(decoder, [LOGIN, LOCATION])
    assert answer(login) == bytes.fromhex("787805010001d9dc0d0a")
    assert answer(location) == framed(0x12, b"", SERIAL)
    assert isinstance(location, Received)
    assert [sent.device_id for sent in location.records] == [IMEI]
    assert location.not_stored("Redis is away") == b""


def test_a_place() -> None:
    found, _ = said(0x12, place() + CELL)
    assert (found.latitude, found.longitude) == (41.0082, 28.9784)
    assert (found.speed_kmh, found.heading_deg, found.timestamp_us) == (36, 270, NOON_US)
    assert attributes(found) == {"satellites": 9, "cells": CELL_FOUND}
    assert found.has_fix


@pytest.mark.parametrize(
    ("bits", "signs"), [(0x1400, (1, 1)), (0x1C00, (1, -1)), (0x1000, (-1, 1)), (0x1800, (-1, -1))]
)
def test_four_quarters_of_the_world(bits: int, signs: tuple[int, int]) -> None:
    found, _ = said(0x12, place(bits=bits))
    assert (found.latitude, found.longitude) == (41.0082 * signs[0], 28.9784 * signs[1])


def test_without_a_fix_coordinates_are_kept_and_no_position() -> None:
    found, _ = said(0x12, place(bits=0x0400))
    assert (found.latitude, found.has_fix) == (41.0082, False)
    found, _ = said(0x12, place(latitude=0, longitude=0))
    assert (found.latitude, found.longitude, found.has_fix) == (0, 0, False)


@pytest.mark.parametrize(
    ("zone", "hour"), [(0x3200, 4), (0x3208, 20), (300 << 4, 9), (530 << 4, 6)], ids=["+8", "-8", "+3", "+5:30"]
)
def test_the_login_tells_the_clock_s_zone(zone: int, hour: int) -> None:
    login = framed(0x01, NAME + b"\x00\x36" + struct.pack(">H", zone), b"\x00\x01")
    found, _ = said(0x12, place(), login)
    minute = 30 if zone == 530 << 4 else 0
    assert datetime.fromtimestamp(found.timestamp_us / 1e6, UTC) == datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


def test_type_22_tells_ignition_and_whether_it_was_kept_back() -> None:
    found, _ = said(0x22, place() + CELL + bytes((1, 0, 1)) + (50_000).to_bytes(4, "big"))
    assert attributes(found) == {
        "satellites": 9,
        "cells": CELL_FOUND,
        "ignition": True,
        "buffered": True,
        "odometer_m": 50_000,
    }


def test_type_a0_has_wide_cells() -> None:
    wide = bytes.fromhex("81cc00000000287d0000000002ea5e01")
    found, _ = said(0xA0, place(bits=0xD50E) + wide + bytes(3))
    assert attributes(found)["cells"] == [{"mcc": 460, "mnc": 0, "lac": 10_365, "cid": 48_913_921}]


@pytest.mark.parametrize("cell", [b"\x09" + CELL, b"\x08" + CELL, b"\x09" + CELL + b"\x01", b"\x00"])
def test_an_alarm_has_a_cell_of_some_length_and_a_state(cell: bytes) -> None:
    found, _ = said(0x16, place() + cell + bytes((0x46, 6, 4, 1, 2)))
    expected = {
        "ignition": True,
        "charging": True,
        "blocked": False,
        "battery_percent": 100,
        "gsm_signal": 4,
        "alarm": "sos",
    }
    assert attributes(found).items() >= expected.items()
    assert ("cells" in attributes(found)) == (len(cell) > 1)


@pytest.mark.parametrize(
    ("bits", "code", "alarm"),
    [
        (0, 2, "power_cut"),
        (1 << 3, 6, "overspeed"),
        (2 << 3, 2, "power_cut"),
        (4 << 3, 0, "sos"),
        (0, 0, None),
    ],
)
def test_alarms(bits: int, code: int, alarm: str | None) -> None:
    found, _ = said(0x13, bytes((bits, 4, 3, code, 1)))
    assert attributes(found).get("alarm") == alarm


HEX = bytes.fromhex
WIDE_CELL = HEX("011e0100001234000000000000abcd")
VOLTS = {"external_v": 12.6, "gsm_signal": 4}


@pytest.mark.parametrize(
    ("kind", "behind", "expected"),
    [
        (0x12, CELL + HEX("02 04ec 04 00"), {"ignition": True, **VOLTS}),
        (0x12, CELL + HEX("3a 04ec 04 00"), {"alarm": "overspeed", **VOLTS}),
        (0x12, CELL + HEX("02 04ec 04 13 0010 85 000003e8"), {"alarm": "tampering", "fuel": 16, "temperature_c": -5}),
        (0x12, CELL + HEX("c123"), {"ignition": True, "input2": True, "adc1_v": 29.1}),
        (0x12, CELL + HEX("1219"), {"ignition": False, "temperature_c": -25}),
        (0x12, CELL + HEX("000003e8 01 35 00 00 0007"), {"odometer_m": 1_000, "driver_id": "5"}),
        (0x12, CELL + HEX("000003e8 4b") + b"card".ljust(75) + bytes((0, 0, 1, 0, 1)), {"driver_id": "card"}),
        (0x12, CELL + HEX("000003e8"), {"odometer_m": 1_000}),
        (0x12, CELL + HEX("01 00 01 000003e8"), {"ignition": True, "buffered": True, "odometer_m": 1_000}),
        (0x11, HEX("011e 0001 1234 0000abcd"), {}),
        (0x17, CELL + HEX("c300000145 3f9201 00"), {"driver_id": "c3000001453f9201"}),
        (0x22, HEX("011e 01 1234 0000abcd 01 00 00 000003e8 00000000 8019 1388"), {"temperature_c": -0.25}),
        (0x24, CELL + HEX("01 04ec 0194 00000000000000000000"), {"external_v": 12.6, "battery_v": 4.04}),
        (0x26, b"\x09" + CELL + HEX("0c 06 04 03 02"), {"alarm": "vibration", "battery_percent": 100}),
        (0x27, b"\x09" + CELL + HEX("80 02 00 19 00 ff"), {"alarm": "low_battery", "blocked": True}),
        (0x16, CELL + HEX("62 04 04 04 00"), {"alarm": "sos", "battery_percent": 66}),
        (
            0x16,
            b"\x08" + CELL + HEX("45 06 04 e8 01 c3000001453f9201"),
            {"event": 232, "driver_id": "c3000001453f9201"},
        ),
        (0x31, HEX("011e 0001 1234 0000abcd 01 00 00 000003e8 0023"), {"ignition": True, "odometer_m": 1_000}),
        (0x32, HEX("0a 011e 0001 1234 0000abcd 46 64 04 02 02 0023"), {"alarm": "power_cut", "battery_percent": 100}),
        (
            0x37,
            CELL + HEX("00 00 01 002e 04 000003e8 003b 02 01f4 0027 02 04ec"),
            {"odometer_m": 1_000, "external_v": 12.6},
        ),
        (0xA2, WIDE_CELL + HEX("11 41 04ec 2a 04 00 01 000003e8 00000e10") + NAME + HEX("0200"), {"engine_hours": 1}),
        (0xA3, b"\x39" + WIDE_CELL + HEX("04 05 04 01 01"), {"alarm": "sos", "battery_percent": 83}),
        (0xA4, b"\x10" + WIDE_CELL + HEX("46 05 04 19 00 ff"), {"alarm": "low_battery", "ignition": True}),
    ],
)
def test_what_models_put_behind_a_place(kind: int, behind: bytes, expected: dict[str, object]) -> None:
    found, _ = said(kind, place() + behind)
    assert (found.latitude, found.longitude, found.timestamp_us) == (41.0082, 28.9784, NOON_US)
    assert attributes(found).items() >= {"satellites": 9, "cells": CELL_FOUND, **expected}.items()


VL103 = HEX(
    "78783536190c1d0f1724cf026cc9140c367d4000940001cc0025ef0540e88c"
    "01000000000064051428000006c3000001453f9201003477560d0a"
)


def test_a_place_of_a_vl103() -> None:
    _, message = feed(Gt06(Options()), [LOGIN, VL103])
    (found,) = records([message])
    assert found.latitude == pytest.approx(22.60211)
    assert found.longitude == pytest.approx(113.832)
    assert (found.has_fix, found.speed_kmh, found.heading_deg) == (True, 0, 0)
    assert datetime.fromtimestamp(found.timestamp_us / 1e6, UTC) == datetime(2025, 12, 29, 15, 23, 36, tzinfo=UTC)
    assert attributes(found) == {
        "satellites": 15,
        "cells": [{"mcc": 460, "mnc": 0, "lac": 9_711, "cid": 88_139_916}],
        "data": "01000000000064051428000006",
        "driver_id": "c3000001453f9201",
    }
    assert answer(message) == framed(0x36, b"", b"\x00\x34")


LONG_CELL = HEX("011e 01 1234 0000abcd")


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (b"", {}),
        (LONG_CELL, {"cells": CELL_FOUND}),
        (LONG_CELL + HEX("0102"), {"cells": CELL_FOUND, "data": "0102"}),
        (LONG_CELL + bytes(21), {"cells": CELL_FOUND, "data": "00" * 13}),
    ],
)
def test_a_place_of_type_36_survives_what_follows_it(behind: bytes, expected: dict[str, object]) -> None:
    found, _ = said(0x36, place() + behind)
    assert (found.latitude, found.longitude, found.timestamp_us) == (41.0082, 28.9784, NOON_US)
    assert attributes(found) == {"satellites": 9, **expected}


@pytest.mark.parametrize("state", ["46 64 04 00 02", "1a 03 01 0c 02"], ids=["no date", "like a date"])
def test_a_state_of_type_36_is_no_place(state: str) -> None:
    found, _ = said(0x36, HEX(state + "0018 02 019d 006a 01 50 00ff 0a 00112233445566778899"))
    assert (found.latitude, found.timestamp_us) == (None, NOW_US)
    assert attributes(found).items() >= {"battery_v": 4.13, "battery_percent": 80}.items()


SENT_LATER = bytes((26, 3, 1, 12, 0, 9))
VOLTS_STATE = HEX("06 0514 28 1f 01 02")
KEY = HEX("09 01 c3000001453f9201")


@pytest.mark.parametrize("sent_at", [CLOCK, SENT_LATER], ids=["at once", "9 s later"])
@pytest.mark.parametrize("size_bytes", [9, 10])
@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (KEY, {"driver_id": "c3000001453f9201"}),
        (b"\x00", {}),
        (KEY + HEX("01 00 01"), {"driver_id": "c3000001453f9201", "buffered": True}),
        (b"\x00" + HEX("abcd"), {"data": "abcd"}),
    ],
)
def test_a_place_of_an_xt40(sent_at: bytes, size_bytes: int, driver: bytes, expected: dict[str, object]) -> None:
    cell = bytes((size_bytes,)) + LONG_CELL
    found, ack = said(0x25, b"\x01" + NAME + sent_at + place() + cell + VOLTS_STATE + HEX("0003e8 00003c") + driver)
    assert (found.latitude, found.longitude, found.timestamp_us) == (41.0082, 28.9784, NOON_US)
    assert ack == framed(0x25, b"", SERIAL)
    assert attributes(found) == {
        "satellites": 9,
        "cells": CELL_FOUND,
        "status": 6,
        "ignition": True,
        "charging": True,
        "blocked": False,
        "external_v": 13,
        "battery_v": 4,
        "gsm_signal": 31,
        "alarm": "sos",
        "odometer_m": 1_000,
        "engine_hours": 1,
        **expected,
    }


def test_a_place_of_type_25_survives_what_follows_it() -> None:
    found, _ = said(0x25, b"\x01" + NAME + CLOCK + place() + HEX("0901"))
    assert (found.latitude, attributes(found)) == (41.0082, {"satellites": 9, "data": "0901"})
    found, _ = said(0x25, place() + LONG_CELL)
    assert (found.latitude, attributes(found)) == (41.0082, {"satellites": 9, "cells": CELL_FOUND})


def test_a_place_of_type_22_may_be_older_than_its_frame() -> None:
    for sent_at in (CLOCK, SENT_LATER):
        found, _ = said(0x22, b"\x01" + NAME + sent_at + place() + b"\x09" + CELL + VOLTS_STATE)
        assert (found.latitude, found.timestamp_us) == (41.0082, NOON_US)
        assert attributes(found).items() >= {"cells": CELL_FOUND, "external_v": 13, "alarm": "sos"}.items()


@pytest.mark.parametrize("cell", [HEX("00") + CELL + b"\x1f", HEX("03") + WIDE_CELL + HEX("001f")])
def test_an_alarm_with_modules_has_a_place(cell: bytes) -> None:
    found, ack = said(0x39, place() + cell + HEX("46 64 04 01 02 0018 02 019d 0099 01 07"))
    assert (found.latitude, found.longitude, found.timestamp_us) == (41.0082, 28.9784, NOON_US)
    assert ack == framed(0x39, b"", SERIAL)
    expected = {"cells": CELL_FOUND, "alarm": "sos", "battery_percent": 100, "battery_v": 4.13, "ignition": True}
    assert attributes(found).items() >= expected.items()


def test_an_altitude_and_an_accuracy() -> None:
    found, _ = said(0x31, place() + HEX("011e 0001 1234 0000abcd 01 00 00 000003e8 ffdd"))
    assert found.altitude_m == -35
    found, _ = said(0x37, place() + CELL + HEX("00 00 01 003b 02 01f4"))
    assert found.accuracy_m == 5


def test_a_number_before_the_place_is_skipped() -> None:
    found, _ = said(0x12, NAME + place() + CELL)
    assert (found.latitude, attributes(found)["cells"]) == (41.0082, CELL_FOUND)
    found, _ = said(0x61, NAME + place() + HEX("011e 01 1234 0000abcd 000001395581"))
    assert (found.latitude, attributes(found)["driver_id"]) == (41.0082, "20534657")


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (0x21, bytes(4) + b"\x02" + "Cut off: done".encode("utf-16-be"), {"result": "Cut off: done"}),
        (0x94, HEX("00 04ec"), {"external_v": 12.6}),
        (0x94, HEX("0b 04ec"), {"external_v": 12.6}),
        (0x94, HEX("05") + CLOCK + b"\x03", {"door": True}),
        (0x94, HEX("0a") + NAME + NAME + HEX("8949012345678901234f"), {"iccid": "8949012345678901234"}),
        (0x94, b"\x0d!AIOIL,02,002.720,029.500,524J,0100,003.400,0,00,93", {"temperature_c": 29.5, "fuel": 3.4}),
        (0x94, HEX("1b 02 08 4277efef 35 03"), {"driver_id": "4277efef"}),
        (0x94, b"\x1bRFID:00\r\n", {"info": "RFID:00"}),
        (0x94, HEX("1e ffffffd5 000002ee"), {"temperature_c": -4.3, "humidity_percent": 75}),
        (0x9B, HEX("03 4435 0d0a"), {"result": "D5"}),
        (0x9B, HEX("03 80d600"), {"result": "80d600"}),
        (
            0x8C,
            CLOCK + b"\x01" + b"2d3=00001c20,353=00002134,4A3=WVWZZZ" + bytes(12),
            {"coolant_c": 72, "vin": "WVWZZZ"},
        ),
        (0x32, CLOCK + HEX("00 09 011e 01 1234 00abcd 24 00 00 a2 00"), {"cells": CELL_FOUND, "gsm_signal": 36}),
        (0x33, CLOCK + HEX("00 00 00 00 a2 00"), {"alarm": "low_battery"}),
        (0x70, HEX("0018 0002 0282 002a 0001 01 002b 0001 14"), {"battery_v": 6.42, "door": True, "alarm": "removing"}),
    ],
)
def test_long_frames(kind: int, body: bytes, expected: dict[str, object]) -> None:
    _, message = feed(Gt06(Options()), [LOGIN, framed(kind, body, SERIAL, LONG)])
    (found,) = records([message])
    assert attributes(found).items() >= expected.items()
    heads = {0x32: LONG, 0x33: LONG, 0x70: b"\x78\x78"}
    assert answer(message) == (framed(kind, b"", SERIAL, heads[kind]) if kind in heads else b"")


NOON = (NOON_US // 1_000_000).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            NOON + HEX("000a 000f 01 c4a82828ccfe 03 00 02 4142434445"),
            {"event": 3, "tags": [{"mac": "c4:a8:28:28:cc:fe", "data": "4142434445"}]},
        ),
        (NOON + HEX("000c 0a 47 00 0000 000000000000 0099 01 ff"), {"bms_percent": 71}),
    ],
)
def test_peripherals(body: bytes, expected: dict[str, object]) -> None:
    _, message = feed(Gt06(Options()), [LOGIN, framed(0xF2, body, SERIAL, LONG)])
    (found,) = records([message])
    assert (found.timestamp_us, attributes(found)) == (NOON_US, expected)
    assert answer(message) == framed(0xF2, b"", SERIAL)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("0bb8 64 0122 01dc", {"battery_v": 3, "battery_percent": 100, "temperature_c": 29, "humidity_percent": 47.6}),
        ("7fff ff ffce 7fff", {"temperature_c": -5}),
        ("7fff ff 7fff 7fff", {}),
    ],
)
def test_a_tag(values: str, expected: dict[str, object]) -> None:
    body = HEX("007f 000e c4a82841074a" + values + "07")
    _, message = feed(Gt06(Options()), [LOGIN, framed(0x70, body, SERIAL, LONG)])
    (found,) = records([message])
    assert attributes(found)["tags"] == [{"id": "c4a82841074a", **expected}]


PLACED = place()[6:]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0x32, CLOCK + b"\x0c" + PLACED + bytes(5)),
        (0x38, place() + HEX("0e 01 03 011e 01 00001234 000000000000abcd 001b 002e 04 000003e8")),
        (0x70, HEX("0033 0012") + (NOON_US // 1_000_000).to_bytes(4, "big") + b"\x09\x00\x23" + PLACED[1:]),
        (
            0x21,
            bytes(4) + b"\x01Current position!Lat:N41.0082,Lon:E28.9784,Course:270.00,Speed:36.0000,"
            b"DateTime:2026-03-01  12:00:00",
        ),
    ],
)
def test_long_frames_with_a_place(kind: int, body: bytes) -> None:
    _, message = feed(Gt06(Options()), [LOGIN, framed(kind, body, SERIAL, LONG)])
    (found,) = records([message])
    assert (found.latitude, found.longitude, found.timestamp_us) == (41.0082, 28.9784, NOON_US)
    assert (found.speed_kmh, found.heading_deg) == (36, 270)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (HEX("46 1864 00 00 2e 42 016f 00 0000 003a"), {"battery_percent": 46, "battery_v": 3.67, "satellites": 9}),
        (HEX("40 b2fa 00 02 01 04 0000 00 0000 011c"), {"battery_percent": 1, "temperature_c": 28.4}),
        (HEX("30 802b 00 00 06 42 014f 00 0872 0000 802b"), {"battery_percent": 6, "temperature_c": 4.3}),
        (HEX("56 06 04 f0 83"), {"external_v": 13.1, "gsm_signal": 4}),
    ],
)
def test_longer_states(body: bytes, expected: dict[str, object]) -> None:
    assert attributes(said(0x13, body)[0]).items() >= expected.items()


def test_an_alarm_of_a_camera() -> None:
    name = b"EVENT_1.mp4"
    found, _ = said(0x95, HEX("ffff01") + CLOCK + HEX("c9 046652e8 031bea60 150e 0024 008a 92 0000") + name)
    assert (found.latitude, found.speed_kmh, found.heading_deg) == (41.0082, 36, 270)
    assert attributes(found).items() >= {"alarm": "hard_cornering", "external_v": 13.8, "data": name.decode()}.items()
    found, _ = said(0x95, CLOCK + HEX("046652e8 031bea60 150e 91 0000") + name)
    assert (found.latitude, attributes(found)["alarm"]) == (41.0082, "hard_braking")
    found, _ = said(0x95, CLOCK + b"\x90")
    assert (found.latitude, attributes(found)["alarm"]) == (None, "hard_acceleration")


def test_frames_without_a_checksum_are_of_another_family_and_refused() -> None:
    mac, cells = HEX("0d0a0d0a0d0a40"), HEX("02011e01 1234abcd0a 0d0a0d0a0d 0d0a")
    frame = b"\x78\x78\x01\x69" + HEX("260301120000") + mac + cells
    _, *messages, after = feed(Gt06(Options()), [LOGIN, frame, LOCATION])
    assert records(messages) == []
    assert {answer(message) for message in messages} == {b""}
    assert len(records([after])) == 1


def test_a_content_of_another_length_is_acked_and_kept_raw() -> None:
    found, ack = said(0x13, b"\x46")
    assert (attributes(found), ack) == ({"type": "13", "raw": "46"}, framed(0x13, b"", SERIAL))


def test_a_zone_that_is_none_leaves_the_listener_s() -> None:
    found, _ = said(0x12, place(), framed(0x01, NAME + b"\x00\x36\xa0\x01", b"\x00\x01"))
    assert found.timestamp_us == NOON_US


def test_a_state_is_no_position_and_of_now() -> None:
    found, ack = said(0x13, bytes((0x46, 4, 3, 0, 1)))
    assert ack == framed(0x13, b"", SERIAL)
    assert (found.latitude, found.timestamp_us) == (None, NOW_US)
    assert attributes(found)["battery_percent"] == 66


def test_a_heartbeat_tells_its_voltage() -> None:
    found, _ = said(0x23, bytes((2, *(412).to_bytes(2, "big"), 3, 0, 1)))
    assert attributes(found) == {
        "status": 2,
        "ignition": True,
        "charging": False,
        "blocked": False,
        "battery_v": 4.12,
        "gsm_signal": 3,
    }


def test_cells_and_access_points_without_a_place() -> None:
    seven = b"".join(bytes.fromhex("cb8a00b177") + bytes((87,)) for _ in range(7))
    found, _ = said(0x2C, CLOCK + b"\x01\x36\x04" + seven + b"\xff\x01" + bytes.fromhex("001801eb40393e"))
    assert found.timestamp_us == NOON_US
    assert attributes(found) == {
        "cells": [{"mcc": 310, "mnc": 4, "lac": 52_106, "cid": 45_431, "level": -87}],
        "wifi": [{"mac": "00:18:01:eb:40:39", "level": -62}],
    }


def test_the_time_is_told_who_asks() -> None:
    _, message = feed(Gt06(Options()), [LOGIN, framed(0x8A, b"", SERIAL)])
    now = datetime.fromtimestamp(NOW_US / 1e6, UTC)
    assert answer(message)[4:10] == bytes((now.year % 100, now.month, now.day, now.hour, now.minute, now.second))


def test_what_is_not_known_is_acked_and_kept_raw() -> None:
    found, ack = said(0x70, b"\x01\x02")
    assert ack == framed(0x70, b"", SERIAL)
    assert attributes(found) == {"type": "70", "raw": "0102"}


@pytest.mark.parametrize("kind", [0x80, 0x94, 0x34])
def test_some_types_expect_no_ack(kind: int) -> None:
    _, message = feed(Gt06(Options()), [LOGIN, framed(kind, bytes(4) + place() + bytes(30), SERIAL, LONG)])
    assert answer(message) == b""


def test_before_the_login_nothing_is_heard() -> None:
    early, login, location = feed(Gt06(Options()), [LOCATION, LOGIN, LOCATION])
    assert isinstance(early, Rejected)
    assert (early.answer, early.last) == (b"", False)
    assert (answer(login)[3], len(records([location]))) == (0x01, 1)


def test_a_wrong_checksum_gets_no_ack_and_is_set_aside() -> None:
    frame = LOCATION[:-4] + b"\x12\x34\r\n"
    _, bad, good = feed(Gt06(Options()), [LOGIN, frame, LOCATION])
    assert isinstance(bad, Rejected)
    assert "checksum" in bad.reason
    assert (bad.answer, [aside.raw for aside in bad.aside]) == (b"", [frame])
    assert len(records([good])) == 1


@pytest.mark.parametrize("length", [0, 4, 5, 0x1E, 0x20])
def test_a_wrong_length_costs_up_to_the_next_end(length: int) -> None:
    frame = LOCATION[:2] + bytes((length,)) + LOCATION[3:]
    decoder = Gt06(Options())
    _, *messages = feed(decoder, [LOGIN, frame, LOCATION, LOCATION])
    assert len(records(messages)) == 2
    assert not decoder.is_mid_message


def test_junk_before_a_frame_is_skipped() -> None:
    decoder = Gt06(Options())
    messages = feed(decoder, [b"\x00\x78\x00", LOGIN, b"junk", LOCATION])
    assert [answer(message)[3] for message in messages] == [0x01, 0x12]


def test_a_date_that_is_none_is_acked_and_set_aside_or_it_would_come_for_ever() -> None:
    frame = framed(0x12, place(clock=bytes(6)) + CELL, SERIAL)
    _, message = feed(Gt06(Options()), [LOGIN, frame])
    assert isinstance(message, Received)
    assert (answer(message), message.records) == (framed(0x12, b"", SERIAL), [])
    assert [(aside.device_id, aside.raw) for aside in message.aside] == [(IMEI, frame)]


@settings(max_examples=500, deadline=None)
@given(
    kind=st.integers(0, 255).filter(lambda kind: kind != 1),
    body=st.one_of(st.binary(max_size=120), st.binary(max_size=100).map(lambda more: place() + more)),
    head=st.sampled_from([b"\x78\x78", LONG]),
)
def test_any_content_of_any_type_is_taken_kept_raw_or_set_aside(kind: int, body: bytes, head: bytes) -> None:
    frame = framed(kind, body, SERIAL, head)
    decoder = Gt06(Options())
    messages = feed(decoder, [LOGIN, frame, LOCATION])
    assert [type(message) for message in messages] == [Received] * 3
    assert len(records(messages[2:])) == 1
