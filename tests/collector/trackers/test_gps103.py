"""GPS103: messages of Coban's trackers, local dates with UTC times, and replies."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Received, Rejected
from collector.trackers.gps103 import Gps103
from telemetry.codec.record_parser import Arrival
from tests.collector.protocols.three_ways import ARRIVAL, NOW_US
from tests.collector.protocols.trackers import attributes, conversation, moment, only, record_of
from tests.collector.protocols.vectors import Exceptions, Vector, differences, vectors

EXCEPTIONS: Exceptions = {
    "gps103_000_L14": {"timestamp": "the device's own time, in its listener's zone"},
    "gps103_016_L66": {"battery": "what OBD measures is the car's: external_v"},
    "gps103_080_L269": {"temp1": "the reference takes the second tank for the temperature"},
}
ID = "359586015829802"
FIX = "F,062947.294,A,2234.4026,N,11354.3277,E,10.00,215.33,175.9,1,0,12.5%,0.0%,-4"
LATE = Arrival(NOW_US, 2**62)


@pytest.mark.parametrize("vector", vectors("gps103"), ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    assert differences(vector, Gps103, EXCEPTIONS) == []


def message(event: str = "tracker", local: str = "0809231429", guest: str = "", rest: str = FIX) -> bytes:
    return f"imei:{ID},{event},{local},{guest},{rest};".encode()


def test_a_position() -> None:
    record = record_of(Gps103, message(guest="13554900601"))
    assert record.timestamp_us == moment(2008, 9, 23, 6, 29, 47)
    assert record.latitude == pytest.approx(22.57337667)
    assert record.longitude == pytest.approx(113.90546167)
    assert record.speed_kmh == pytest.approx(18.52)
    assert (record.altitude_m, record.heading_deg) == (175.9, 215.33)
    assert record.has_fix
    assert attributes(record) == {
        "phone": "13554900601",
        "ignition": True,
        "door": False,
        "fuel_percent": 12.5,
        "fuel2_percent": 0.0,
        "temperature_c": -4.0,
    }
    assert record_of(Gps103, message(), speed_unit="kmh").speed_kmh == 10
    assert not record_of(Gps103, message(rest=FIX.replace(",A,", ",V,"))).has_fix


def test_answers() -> None:
    frames = [f"##,imei:{ID},A;".encode(), f"{ID};".encode(), message("help me"), message()]
    found = conversation(Gps103, frames)
    assert [one.answer for one in found] == [b"LOAD", b"ON", f"**,imei:{ID},E;".encode(), b""]
    assert [len(one.records) for one in found] == [0, 0, 1, 1]


@pytest.mark.parametrize("end", [b";", b"\r\n", b"\n", b"*", b";\r\n", b""])
def test_ends(end: bytes) -> None:
    frame = message()[:-1]
    assert conversation(Gps103, [frame + end]) == conversation(Gps103, [frame + b";"])
    assert not conversation(Gps103, [frame + end])[-1].last


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("tracker", {}),
        ("help me", {"alarm": "sos"}),
        ("low battery", {"alarm": "low_battery"}),
        ("ac alarm", {"alarm": "power_cut"}),
        ("move", {"alarm": "movement"}),
        ("speed", {"alarm": "overspeed"}),
        ("door alarm", {"alarm": "door"}),
        ("oil 51.67", {"alarm": "fuel_leak", "fuel_percent": 51.67}),
        ("T:+28.5", {"alarm": "temperature", "temperature_c": 28.5}),
        ("acc on", {"ignition": True}),
        ("acc off", {"ignition": False}),
        ("DTC", {"alarm": "fault"}),
        ("qt", {"event": "qt"}),
    ],
)
def test_events(event: str, expected: dict[str, object]) -> None:
    assert attributes(record_of(Gps103, message(event, rest="L,"))) == expected


def test_the_state_counts_more_than_the_event() -> None:
    assert attributes(record_of(Gps103, message("acc off")))["ignition"] is True


def test_a_card() -> None:
    assert attributes(record_of(Gps103, message("rfid", guest="0A0B0C"))).items() >= {"driver_id": "0A0B0C"}.items()


def test_a_blank_hemisphere_is_north_or_east() -> None:
    record = record_of(Gps103, message(rest="F,104000.000,A,2220.6483,N,11407.6377,,0,0,"))
    assert (record.latitude, record.longitude) == pytest.approx((22.344138, 114.127295))


def test_decimal_degrees() -> None:
    record = record_of(Gps103, message(rest="F,062947,A,-22.573377,113.905462,10.00"))
    assert (record.latitude, record.longitude) == (-22.573377, 113.905462)


@pytest.mark.parametrize(
    "rest",
    [
        "F,062947,A",
        "F,062947,A,2234.4026,X,11354.3277,E",
        "F,062947,A,2299.4026,N,11354.3277,E",
        FIX.replace("10", "x"),
    ],
)
def test_broken_messages(rest: str) -> None:
    found = only(Gps103, message(rest=rest))
    assert isinstance(found, Rejected)
    assert (found.answer, found.aside[0].device_id) == (b"", ID)


# Time ------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.datetimes(datetime(2001, 1, 1), datetime(2090, 1, 1)), st.integers(-46, 46))
def test_the_date_follows_from_both_times(at: datetime, quarters: int) -> None:
    """Whatever the zone, up to 11:45 from UTC."""
    at_us = round(at.replace(tzinfo=UTC).timestamp()) * 1_000_000
    at_us -= at_us % 60_000_000
    local = datetime.fromtimestamp(at_us / 1e6 + quarters * 900, UTC)
    clock = datetime.fromtimestamp(at_us / 1e6, UTC)
    frame = message(local=f"{local:%y%m%d%H%M}", rest=FIX.replace("062947.294", f"{clock:%H%M%S}"))
    assert record_of(Gps103, frame, LATE).timestamp_us == at_us


def test_zones_far_from_utc_need_their_listener_to_say_so() -> None:
    frame = message(local="2603011300", rest=FIX.replace("062947.294", "000000"))
    auckland = record_of(Gps103, frame, timezone=ZoneInfo("Pacific/Auckland"))
    assert auckland.timestamp_us == moment(2026, 3, 1)
    assert record_of(Gps103, frame).timestamp_us == moment(2026, 3, 2)


def test_without_a_fix_the_zone_is_what_the_device_told_before() -> None:
    alone = message("door alarm", "2603011400", rest="L,,,fa8,,c9af")
    assert record_of(Gps103, alone).timestamp_us == moment(2026, 3, 1, 14)
    found = conversation(Gps103, [message(), alone])
    assert found[1].records[0][1].timestamp_us == moment(2026, 3, 1, 6), "8 hours ahead of UTC"
    assert record_of(Gps103, alone, timezone=ZoneInfo("Europe/Istanbul")).timestamp_us == moment(2026, 3, 1, 11)
    assert attributes(record_of(Gps103, alone)) == {"alarm": "door", "cells": [{"lac": 0xFA8, "cid": 0xC9AF}]}


@pytest.mark.parametrize("local", ["000000000", ""])
def test_without_a_date_it_is_arrival(local: str) -> None:
    assert record_of(Gps103, message(local=local, rest="L,")).timestamp_us == NOW_US
    near = record_of(Gps103, message(local=local), Arrival(moment(2026, 3, 2, 0, 10)))
    assert near.timestamp_us == moment(2026, 3, 2, 6, 29, 47)


@pytest.mark.parametrize("local", ["1413011200", "140101", "x"])
def test_dates_that_are_none(local: str) -> None:
    found = only(Gps103, message(local=local))
    assert isinstance(found, Rejected)
    assert found.reason.startswith("timestamp: ")


def test_what_an_engine_says() -> None:
    frame = message("OBD", "180301094003", "5000000", "1.50,7.25,98,18,68.63%,55,25.10%,1368,14.24,P0420,P0171,,")
    record = record_of(Gps103, frame)
    assert record.timestamp_us == moment(2018, 3, 1, 9, 40, 3)
    assert record.latitude is None
    assert attributes(record) == {
        "type": "OBD",
        "odometer_m": 5_000_000,
        "fuel_l_per_h": 1.5,
        "fuel_l_per_100km": 7.25,
        "engine_hours": 98,
        "obd_speed_kmh": 18,
        "engine_load_percent": 68.63,
        "coolant_c": 55,
        "throttle_percent": 25.1,
        "rpm": 1368,
        "external_v": 14.24,
        "fault_codes": ["P0420", "P0171"],
    }


def test_a_message_of_unknown_form_is_kept() -> None:
    found = only(Gps103, f"imei:{ID},power on,2603011200,x;".encode(), ARRIVAL)
    assert isinstance(found, Received)
    assert attributes(found.records[0].record) == {"event": "power on", "io1": "x"}


@pytest.mark.parametrize("login", [f"##,imei:{ID},A;", f"imei:{ID},A;", f"imei:{ID},L,*"])
def test_logins(login: str) -> None:
    found = only(Gps103, login.encode())
    assert isinstance(found, Received)
    assert (found.stored, found.records) == (b"LOAD", [])


def test_a_keep_alive_that_lost_its_end_is_answered_too() -> None:
    found = only(Gps103, f"{ID}imei:{ID},tracker,2603011500,,F,120000.000,A,4100.4920,N,02858.7040,E,1.0,;".encode())
    assert isinstance(found, Received)
    assert (found.stored, len(found.records)) == (b"ON", 1)


def test_a_part_of_a_photo_is_not_kept() -> None:
    found = only(Gps103, f"imei:{ID},vr,{'00ff' * 1_500};".encode())
    assert isinstance(found, Received)
    assert found.records == []


def test_values_of_another_form() -> None:
    text = f"imei:{ID},Car 1,---,------,----,120000,010326,26,1,41.00820,28.97840,036,270,0035,1.00,09,1,0,---,*"
    record = record_of(Gps103, text.encode())
    assert (record.latitude, record.longitude, record.timestamp_us) == (41.0082, 28.9784, moment(2026, 3, 1, 12))
    assert (record.speed_kmh, record.heading_deg, record.altitude_m, record.has_fix) == (36, 270, 35, True)
    assert attributes(record) == {
        "gsm_signal": 26,
        "hdop": 1,
        "satellites": 9,
        "ignition": True,
        "charging": False,
    }
    assert not record_of(Gps103, text.replace(",26,1,", ",26,0,").encode()).has_fix


def fixed(event: str, behind: str, phone: str = "", place: str = "4100.4920,N,02858.7040,E") -> str:
    return f"imei:{ID},{event},260301150000,{phone},F,120000.000,A,{place},0.0,270,{behind};"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (fixed("DTC", ",1,0,10.5%,P0021,"), {"alarm": "fault", "fuel_percent": 10.5, "fault_codes": ["P0021"]}),
        (fixed("tracker", ",1,0,31.37%,51442,"), {"fuel_percent": 31.37, "odometer_m": 51_442}),
        (fixed("tracker", "", phone="97%"), {"battery_percent": 97}),
        (f"imei:{ID},OBD,260301150000,196043,,14.9,,000,0.0%,+,0.0%,00000,12.6,,,,;", {"external_v": 12.6, "rpm": 0}),
        (f"imei:{ID},tracker,0000000119,,L,,,0FB6,,CB5D,,,;", {"cells": [{"lac": 0xFB6, "cid": 0xCB5D}]}),
    ],
)
def test_more_of_what_messages_say(message: str, expected: dict[str, object]) -> None:
    assert attributes(record_of(Gps103, message.encode())).items() >= expected.items()


def test_hemispheres_before_the_degrees() -> None:
    record = record_of(Gps103, fixed("tracker", "", place="S,4100.4920,W,02858.7040").encode())
    assert (round(record.latitude or 0, 4), round(record.longitude or 0, 4)) == (-41.0082, -28.9784)
