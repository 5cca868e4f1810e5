"""TK103: messages with fixed columns and with commas, and the two that have a reply."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Received, Rejected
from collector.trackers.tk103 import Tk103
from tests.collector.protocols.three_ways import NOW_US
from tests.collector.protocols.trackers import attributes, conversation, moment, only, record_of
from tests.collector.protocols.vectors import Exceptions, Vector, differences, vectors

_SWITCHES = dict.fromkeys(("in2", "panic", "out2", "fuel"), "all eight switches are kept raw, in one value")
_LITTLE_ENDIAN = "the reference reads the words backwards: 5,632 % of charge, 59 V in a cell"
EXCEPTIONS: Exceptions = {
    "tk103_000_L14": dict.fromkeys(
        [
            *("cumulativeVoltage", "gatherVoltage", "current", "soc", "maxCellVoltage", "maxCellVoltageCount"),
            *("minCellVoltage", "minCellVoltageCount", "maxTemp", "maxTempCount", "minTemp", "minTempCount"),
            *(f"cellTemp{n}" for n in range(1, 8)),
        ],
        _LITTLE_ENDIAN,
    ),
    "tk103_008_L41": _SWITCHES,
    "tk103_016_L65": {"altitude_m": "which the reference passes over"},
    "tk103_024_L90": {"records": "a message of unknown meaning is kept raw"},
    "tk103_040_L139": {**_SWITCHES, "device_id": "the parenthesis is not part of an id of 11 digits"},
    "tk103_048_L163": _SWITCHES,
}
FIX = "130520A3439.9629S05826.3504W000.1175622323.8700000000L000450AC"


@pytest.mark.parametrize("vector", vectors("tk103"), ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    assert differences(vector, Tk103, EXCEPTIONS) == []


def message(command: str, content: str = FIX, device_id: str = "012345678901") -> bytes:
    return f"({device_id}{command}{content})".encode()


def test_a_position() -> None:
    record = record_of(Tk103, message("BR00"))
    assert record.timestamp_us == moment(2013, 5, 20, 17, 56, 22)
    assert record.latitude == pytest.approx(-34.66604833)
    assert record.longitude == pytest.approx(-58.43917333)
    assert (record.speed_kmh, record.heading_deg) == (0.1, 323.87)
    assert attributes(record) == {
        "charging": True,
        "ignition": False,
        "switches": "00000000",
        "odometer_m": 282_796,
    }
    assert not record_of(Tk103, message("BR00", FIX.replace("A", "V", 1))).has_fix


@pytest.mark.parametrize(
    ("course", "expected"), [("323.87", 323.87), ("90.000", 90), ("000000", 0), (" 87.31", 87.31), ("  8.50", 8.5)]
)
def test_a_course_is_of_six_characters(course: str, expected: float) -> None:
    record = record_of(Tk103, message("BR00", FIX.replace("323.87", course)))
    assert record.heading_deg == expected
    assert attributes(record)["odometer_m"] == 282_796


def test_answers() -> None:
    frames = [message("BP00", "000012345678901HSO"), message("BP05", "000012345678901" + FIX), message("BR00")]
    found = conversation(Tk103, frames)
    assert [one.answer for one in found] == [b"(012345678901AP01HSO)", b"(012345678901AP05)", b""]
    assert [len(one.records) for one in found] == [0, 1, 1]
    [login] = conversation(Tk103, [message("BP05", "000012345678901")])
    assert (login.records, login.answer) == ([], b"(012345678901AP05)")


def test_a_login_that_can_never_be_stored_does_not_block_its_device() -> None:
    found = only(Tk103, message("BP05", FIX.replace("130520", "139920")))
    assert isinstance(found, Received)
    assert (found.records, found.stored) == ([], b"(012345678901AP05)")
    assert found.aside[0].device_id == "012345678901"
    assert isinstance(only(Tk103, message("BR00", FIX.replace("130520", "139920"))), Rejected)


@pytest.mark.parametrize(
    ("command", "content", "expected"),
    [
        ("BO01", f"2{FIX}", {"alarm": "sos"}),
        ("BO01", f"5{FIX}", {"alarm": "overspeed"}),
        (",ZC15", ",040613,A,2234.0297N,11405.9101E,000.0,040137,178.48", {"ignition": True}),
        (",ZC25", ",040613,A,2234.0297N,11405.9101E,000.0,040137,178.48", {"alarm": "sos"}),
        ("BZ00", ",460,0,25ee,dff", {"cells": [{"mcc": 460, "mnc": 0, "lac": 0x25EE, "cid": 0xDFF}]}),
        ("BV00", "1FTRE1421YHA50951", {"vin": "1FTRE1421YHA50951"}),
        (",ZC03", ",040613,040137,$a (b) c$", {"result": "a (b) c"}),
        (",ZC20", ",040613,040137,255,65535,65535,0", {}),
        ("BP02", "some text", {"type": "BP02", "data": "some text"}),
    ],
)
def test_what_messages_mean(command: str, content: str, expected: dict[str, object]) -> None:
    found = attributes(record_of(Tk103, message(command, content)))
    assert found.items() >= expected.items()
    assert expected or found == {}


def test_times_of_messages_without_a_position() -> None:
    assert record_of(Tk103, message(",ZC03", ",040613,040137,$ok$")).timestamp_us == moment(2013, 6, 4, 4, 1, 37)
    assert record_of(Tk103, message("BZ00", ",460,0,25ee,dff")).timestamp_us == NOW_US


def test_a_traction_battery() -> None:
    content = "90:02150000753001DC,91:0EE8060EDC0A01DC,92:42014201DC0A01DC,95:020EE1,"
    assert attributes(record_of(Tk103, message("BS51", content))) == {
        "type": "BMS",
        "data": content,
        "bms_v": 53.3,
        "bms_a": 0.0,
        "bms_percent": 47.6,
        "bms_cell_max_v": 3.816,
        "bms_cell_min_v": 3.804,
        "bms_temperature_max_c": 26,
        "bms_temperature_min_c": 26,
    }


def test_satellites_and_places_of_0() -> None:
    nowhere = ",040613,A,0000.0000N,00000.0000E,000.0,040137,178.48,5.0,{}"
    assert not record_of(Tk103, message(",ZC11", nowhere.format("0"))).has_fix
    there = record_of(Tk103, message(",ZC11", nowhere.format("7")))
    assert there.has_fix
    assert attributes(there)["satellites"] == 7


@pytest.mark.parametrize("device_id", ["13612345678", "864768011069660", "0A3612345678"])
def test_ids(device_id: str) -> None:
    assert conversation(Tk103, [message("BR00", FIX, device_id)])[0].records[0][0] == device_id


@pytest.mark.parametrize(
    "frame",
    [b"()", b"(hello)", b"(012345678901)", b"(1,ZC11,040613,A,99x,11405.9101E,0,040137,1)", b"(1BR00\xff)"],
)
def test_broken_messages(frame: bytes) -> None:
    found = only(Tk103, frame)
    assert isinstance(found, Rejected)
    assert (found.answer, found.aside[0].raw, found.last) == (b"", frame, False)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2026, 1, 1)),
    st.floats(-89.99, 89.99),
    st.floats(-179.99, 179.99),
    st.integers(0, 9999),
    st.integers(0, 35999),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_all_positions(
    at: datetime, latitude: float, longitude: float, speed: int, course: int, odometer: int, is_blank: bool
) -> None:
    """As devices write them that pad with zeros, and as those that pad with blanks."""
    lat, lon = abs(latitude), abs(longitude)
    lat_min, lon_min = min(lat % 1 * 60, 59.9999), min(lon % 1 * 60, 59.9999)
    degrees, tenths, hundredths = f"{int(lon):03}", f"{speed / 10:05.1f}", f"{course / 100:06.2f}"
    if is_blank:
        degrees, tenths, hundredths = f"{int(lon):3}", f"{speed / 10:5.1f}", f"{course / 100:6.2f}"
    fix = (
        f"{at:%y%m%d}A{int(lat):02}{lat_min:07.4f}{'S' if latitude < 0 else 'N'}"
        f"{degrees}{lon_min:07.4f}{'W' if longitude < 0 else 'E'}{tenths}{at:%H%M%S}{hundredths}01000000L{odometer:08X}"
    )
    record = record_of(Tk103, message("BR00", fix))
    assert record.timestamp_us == round(at.replace(tzinfo=UTC, microsecond=0).timestamp()) * 1_000_000
    assert record.latitude == pytest.approx(latitude, abs=2e-6)
    assert record.longitude == pytest.approx(longitude, abs=2e-6)
    assert (record.speed_kmh, record.heading_deg) == (speed / 10, course / 100)
    assert attributes(record)["odometer_m"] == odometer


PLACE = "260301A4100.4920N02858.7040E036.0120000270.00"
CELLS = [{"mcc": 413, "mnc": 2, "lac": 30_073, "cid": 16_724}, {"mcc": 413, "mnc": 2, "lac": 30_073, "cid": 16_730}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"BR00{PLACE}01000000L000000FF+017.7", {"temperature_c": 17.7, "odometer_m": 255}),
        (f"BR00{PLACE}01000000L000000FF-007.5", {"temperature_c": -7.5}),
        (f"BR00{PLACE},01000000L000000FF", {"ignition": True, "odometer_m": 255}),
        (f"BQ81,ALARM,1,164,{PLACE},00000000", {"alarm": "overspeed", "ignition": False}),
        (f"BQ81,ALARM,4,164,{PLACE},00000000", {"alarm": "hard_braking"}),
        (",DW3E,010326,A,4100.4920N,02858.7040E,36.0,120000,270.00", {"alarm": "sos"}),
        (
            ",BP05,010326,A,4100.4920N,02858.7040E,36.0,120000,270.00,01000000,L000000FF",
            {"ignition": True, "odometer_m": 255},
        ),
    ],
)
def test_more_of_what_stands_beside_a_place(content: str, expected: dict[str, object]) -> None:
    record = record_of(Tk103, f"(013612345678{content})".encode())
    assert (round(record.latitude or 0, 4), record.speed_kmh) == (41.0082, 36)
    assert record.timestamp_us == moment(2026, 3, 1, 12)
    assert attributes(record).items() >= expected.items()


@pytest.mark.parametrize("head", ["BZ00", "BP05355227045009305"])
def test_cells_line_by_line(head: str) -> None:
    frame = f"(027045009305{head},{{413,2,30073,16724}}\n{{413,2,30073,16730}}\n,01000000)".encode()
    found = attributes(record_of(Tk103, frame))
    assert (found["cells"], found["ignition"]) == (CELLS, True)


def test_cells_and_networks_with_their_moment() -> None:
    frame = b"(864555555555555,DW51,413,2,30073,16724,2,58:F3:BB:3B:AA:82*-65*1,1C:6A:BB:AA:81:95*-78*1,010326,120000)"
    record = record_of(Tk103, frame)
    assert record.timestamp_us == moment(2026, 3, 1, 12)
    assert attributes(record) == {
        "alarm": "movement",
        "cells": CELLS[:1],
        "wifi": [{"mac": "58:f3:bb:3b:aa:82", "level": -65}, {"mac": "1c:6a:bb:aa:81:95", "level": -78}],
    }


def test_a_result_of_several_lines() -> None:
    record = record_of(Tk103, b"(864555555555555,ZC03,010326,120000,$1. On\r\n2. Off (both)$)")
    assert attributes(record) == {"result": "1. On\r\n2. Off (both)"}


def test_before_its_first_fix_a_device_has_no_date() -> None:
    frame = b"(087072009461BR00000007V0000.0000N00000.0000E000.00014039901000000L00000000)"
    record = record_of(Tk103, frame)
    assert (record.latitude, record.timestamp_us, attributes(record)["ignition"]) == (None, NOW_US, True)
