"""Queclink's text protocol: fixes at any position, replies, and messages without an end mark."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.framing.decoder import Received, Rejected
from collector.framing.frame_decoder import Options
from collector.trackers.gl200.decoder import Gl200
from tests.collector.protocols.three_ways import ARRIVAL, NOW_US
from tests.collector.protocols.trackers import attributes, conversation, moment, only, outcomes, record_of
from tests.collector.protocols.vectors import Exceptions, Vector, differences, vectors

EXCEPTIONS: Exceptions = {
    "gl200_032_L120": dict.fromkeys(("tag1Id", "tag1Temp", "tag1Humidity"), "tags are an array"),
    "gl200_048_L175": {"warningType": "kept raw, with the level after it"},
    "gl200_112_L378": {"timestamp": "the time of sending", "cells": "with the serving cell, which is the last one"},
}
STATE = {
    "status": "210101",
    "ignition": True,
    "motion": False,
    "inputs": 1,
    "input1": False,
    "input2": False,
    "outputs": 1,
    "output1": True,
    "output2": False,
}
FIX = "1,4.3,92,70.0,121.354335,31.222073,20090214013254,0460,0000,18d8,6141"
TAIL = "20090214093254,11F0"
ID = "135790246811220"


@pytest.mark.parametrize("vector", vectors("gl200"), ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    assert differences(vector, Gl200, EXCEPTIONS) == []


def message(name: str, values: str, kind: str = "RESP", tail: str = TAIL) -> bytes:
    return f"+{kind}:GT{name},1A0102,{ID},{values},{tail}$".encode()


def test_a_position() -> None:
    record = record_of(Gl200, message("FRI", f",0,0,1,{FIX},00,2000.5,87"))
    assert record.timestamp_us == moment(2009, 2, 14, 1, 32, 54)
    assert (record.latitude, record.longitude, record.altitude_m) == (31.222073, 121.354335, 70)
    assert (record.speed_kmh, record.heading_deg, record.has_fix) == (4.3, 92, True)
    assert attributes(record) == {
        "type": "FRI",
        "battery_percent": 87,
        "hdop": 1,
        "cells": [{"mcc": 460, "mnc": 0, "lac": 0x18D8, "cid": 0x6141}],
        "odometer_m": 2_000_500,
    }


def test_a_kept_message_says_so_of_each_fix() -> None:
    kept = only(Gl200, message("FRI", f",0,0,2,{FIX},25.2,{FIX.replace('0132', '0133')},25.3,83", "BUFF"))
    assert isinstance(kept, Received)
    found = [attributes(sent.record) for sent in kept.records]
    assert [one["buffered"] for one in found] == [True, True]
    assert [one["odometer_m"] for one in found] == [25_200, 25_300]
    assert [one.get("battery_percent") for one in found] == [None, 83]
    assert [sent.record.timestamp_us for sent in kept.records] == [
        moment(2009, 2, 14, 1, 32, 54),
        moment(2009, 2, 14, 1, 33, 54),
    ]
    assert "buffered" not in attributes(record_of(Gl200, message("FRI", f",0,0,1,{FIX},00,,")))


@pytest.mark.parametrize("count", [1, 2, 7, 15])
def test_all_fixes_of_a_message(count: int) -> None:
    for behind in ("", ",00", ",25.2", ",00,25.2", ",,25.2"):
        fixes = ",".join(FIX.replace("0132", f"01{n:02}") + behind for n in range(count))
        found = only(Gl200, message("FRI", f",0,0,{count},{fixes}"))
        assert isinstance(found, Received)
        assert [sent.record.timestamp_us for sent in found.records] == [
            moment(2009, 2, 14, 1, n, 54) for n in range(count)
        ]
        assert {sent.record.speed_kmh for sent in found.records} == {4.3}


def test_a_vehicle() -> None:
    tail = "00,1234.5,00102:30:36,1200,,3300,95,220305,,,"
    found = attributes(record_of(Gl200, message("FRI", f"gv300,12345,10,1,{FIX},{tail}")))
    assert (
        found.items()
        >= {
            "external_v": 12.345,
            "odometer_m": 1_234_500,
            "engine_hours": 102.51,
            "adc1_v": 1.2,
            "adc3_v": 3.3,
            "battery_percent": 95,
            "status": "220305",
            "ignition": True,
            "motion": True,
            "inputs": 3,
            "outputs": 5,
        }.items()
    )
    assert "adc2_v" not in found


ENGINE = ("rpm", "fuel_l_per_100km", "fuel_percent", "fuel2_percent", "data", "extra")


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("00,74.1,,,,83,220000,799,7.3,", {"rpm": 799, "fuel_l_per_100km": 7.3}),
        ("20460.9,00080:03:37,,,100,210000,791,,56", {"rpm": 791, "fuel_percent": 56}),
        ("00,0.0,,,,100,410000,0,nan,", {"rpm": 0}),
        ("00,0.0,,,,100,220100,800,Inf,0", {"rpm": 800, "fuel_percent": 0}),
        ("00,2000.0,12345:12:34,,92,80,210100,,,50", {"fuel_percent": 50}),
        ("00,0.0,,,,100,210100,,,", {}),
        ("00,0.0,,,,100,210100,,,101", {"extra": "101"}),
        ("00,0.0,,,,100,210100,ABC,1,2,3", {"extra": "ABC,1,2,3"}),
        ("01,12,0.0,,F0,F55,,100,1A0201,,,", {"fuel_percent": 0, "fuel2_percent": 55}),
        ("00,0.0,,F50,,100,210100,,,40", {"fuel_percent": 40}),
        ("00,0.0,,F101,,100,210100,,,", {"data": "F101,"}),
    ],
)
@pytest.mark.parametrize("name", ["FRI", "RTL"])
def test_an_engine_and_its_fuel(name: str, tail: str, expected: dict[str, object]) -> None:
    found = attributes(record_of(Gl200, message(name, f"gv500,12802,10,1,{FIX},{tail}")))
    assert {key: found[key] for key in ENGINE if key in found} == expected
    assert "status" in found


@pytest.mark.parametrize(
    ("name", "before", "expected"),
    [
        ("SOS", ",0,0,1", {"alarm": "sos"}),
        ("SPD", ",0,1,1", {"alarm": "overspeed"}),
        ("TOW", ",,10,1", {"alarm": "tow"}),
        ("GEO", ",0,0,1", {"alarm": "geofence_exit"}),
        ("GEO", ",,21,1", {"alarm": "geofence_enter"}),
        ("HBM", ",,10,1", {"alarm": "hard_braking"}),
        ("HBM", ",,11,1", {"alarm": "hard_acceleration"}),
        ("NMR", ",0,1,1", {"motion": True}),
        ("DIS", ",1,0,1", {"input1": False}),
        ("IGL", ",,00,1", {"ignition": False}),
        ("IGN", ",1200", {"ignition": True, "data": "1200"}),
        ("IGF", ",1200", {"ignition": False, "data": "1200"}),
        ("STT", ",22", {"alarm": "movement", "ignition": True, "motion": True}),
        ("MPF", "", {"alarm": "power_cut"}),
        ("MPN", "", {"alarm": "power_restored"}),
        ("BPL", ",3.53", {"alarm": "low_battery", "battery_v": 3.53}),
        ("TEM", ",3,-11", {"alarm": "temperature", "temperature_c": -11}),
        ("RTL", ",0,0,1", {}),
        ("XYZ", ",4,what", {"data": "4,what"}),
    ],
)
def test_what_types_mean(name: str, before: str, expected: dict[str, object]) -> None:
    found = attributes(record_of(Gl200, message(name, f"{before},{FIX},00,")))
    assert found.pop("cells")
    assert found.pop("hdop") == 1
    assert found == {"type": name, **expected}


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("00,4.5,83", {"odometer_m": 4_500, "battery_percent": 83}),
        ("01,15,4.5,83", {"odometer_m": 4_500, "battery_percent": 83, "satellites": 15}),
        ("03,15,,4.5,83,,,", {"odometer_m": 4_500, "battery_percent": 83, "satellites": 15}),
        ("03,,2,,83", {"battery_percent": 83}),
        ("00,83", {"battery_percent": 83}),
        ("18,0,3750,79,1,1,-4.5", {"battery_v": 3.75, "battery_percent": 79, "motion": True, "temperature_c": -4.5}),
        ("18,0,,93,0,,", {"battery_percent": 93}),
        ("00,3,85", {"battery_percent": 85}),
        ("31,-1,99", {"battery_percent": 99}),
        ("00,0.0,,,98,210101", {"odometer_m": 0, **STATE, "battery_percent": 98}),
        ("00,0.0,,,,,98,210101", {"odometer_m": 0, **STATE, "battery_percent": 98}),
        ("0015e96913a7,-58,,97", {"battery_percent": 97, "wifi": [{"mac": "0015e96913a7", "level": -58}]}),
        ("00,4.5,20090214093254", {"odometer_m": 4_500, "extra": "20090214093254"}),
        ("00,4.5,00001:30:00,,,,0F,00", {"odometer_m": 4_500, "engine_hours": 1.5, "extra": "0F,00"}),
        ("", {}),
    ],
)
def test_what_stands_behind_the_cell(behind: str, expected: dict[str, object]) -> None:
    found = attributes(record_of(Gl200, message("FRI", f",0,0,1,{FIX},{behind}")))
    assert {name: found[name] for name in found if name not in ("type", "cells", "hdop")} == expected


def test_networks_before_the_cell() -> None:
    fix, _, network = FIX.partition(",0460")
    text = f",0,1,1,{fix},2,0e36c9916485,-50,,,,e831cd5eb79d,-73,,,,0460{network},00,,93"
    found = attributes(record_of(Gl200, message("FRI", text)))
    assert [one["mac"] for one in found["wifi"]] == ["0e36c9916485", "e831cd5eb79d"]
    assert (found["battery_percent"], found["cells"][0]["cid"]) == (93, 0x6141)


@pytest.mark.parametrize(
    ("name", "before", "behind", "expected"),
    [
        ("CTN", "NOKIA3,0,0,2,,9", ",,0000", {"battery_percent": 9}),
        ("STR", "GL500,0,0,2,21.1,86", ",,", {"battery_percent": 86, "temperature_c": 21.1}),
        ("IGF", ",145", "01,12,,7.5", {"satellites": 12, "odometer_m": 7_500, "ignition": False}),
        ("IGN", "CV200,,0,140944", ",,5810.9,20251222070035", {"odometer_m": 5_810_900, "ignition": True}),
        ("LSW", ",0,1", "", {"input1": True}),
        ("TSW", ",0,0", "", {"input2": False}),
        ("IDA", ",,01C68011010000C7,1,1", "00,34.9,,,,", {"driver_id": "01C68011010000C7", "odometer_m": 34_900}),
        (
            "FRI",
            "WVWZZZ1JZXW000001,,14900,41,1",
            "00,74.1,,,,83,220000",
            {"vin": "WVWZZZ1JZXW000001", "external_v": 14.9},
        ),
        ("ERI", ",00000001,,10,1", "00,0.0,,,,99,110000,1,0099", {"fuel": 153, "battery_percent": 99}),
        (
            "OBD",
            ",gv500,0,78FFFF,WVWZZZ1JZXW000001,1,13411,981B81C0,787,3,43,,921,463,1,2,03000301,20,55,40,,1286",
            "00,0.0",
            {
                "vin": "WVWZZZ1JZXW000001",
                "external_v": 13.411,
                "rpm": 787,
                "obd_speed_kmh": 3,
                "coolant_c": 43,
                "fault_codes": ["0300", "0301"],
                "throttle_percent": 20,
                "engine_load_percent": 55,
                "fuel_percent": 40,
            },
        ),
    ],
)
def test_what_messages_tell_beside_a_fix(name: str, before: str, behind: str, expected: dict[str, object]) -> None:
    found = attributes(record_of(Gl200, message(name, f"{before},{FIX},{behind}")))
    assert found.items() >= expected.items()


@pytest.mark.parametrize(
    ("name", "before", "behind", "expected"),
    [
        (
            "ERI",
            ",00000100,,10,1",
            "00,0.0,,,,,99,210100,,2,00,6,4,0D1C,283F,WMS301,7805414BA78A,1,3453,24,33,24.58,100,01,6,2,,0002,7805412CF25C",
            [
                {
                    "mac": "7805414ba78a",
                    "name": "WMS301",
                    "battery_v": 3.453,
                    "temperature_c": 24.58,
                    "humidity_percent": 33,
                    "battery_percent": 100,
                },
                {"mac": "7805412cf25c"},
            ],
        ),
        (
            "ERI",
            ",00000100,,10,1",
            "00,0.0,,,,,99,210100,,1,0,6,4,,0013,T,7805414BA78A,-4.5",
            [{"mac": "7805414ba78a", "name": "T", "temperature_c": -4.5}],
        ),
        ("BID", ",1,0,000A,B80EA11FF800,2934", "", [{"mac": "b80ea11ff800", "battery_v": 2.934}]),
        ("BAA", ",FF,3,0,04,000A,B80EA11FF800,", "", [{"mac": "b80ea11ff800"}]),
    ],
)
def test_tags_around(name: str, before: str, behind: str, expected: list[dict[str, object]]) -> None:
    assert attributes(record_of(Gl200, message(name, f"{before},{FIX},{behind}")))["tags"] == expected


def test_the_oldest_end_with_their_version() -> None:
    text = f"+RESP:GTINF,{ID},8938003990320469804f,18,99,100,1,0,+2.00,0,20131018084015,00EE,0103090402"
    assert record_of(Gl200, text.encode()).timestamp_us == moment(2013, 10, 18, 8, 40, 15)


def test_hours_before_the_odometer() -> None:
    found = attributes(record_of(Gl200, message("IGN", f",1200,{FIX},00,00010:30:00,12.3")))
    assert (found["engine_hours"], found["odometer_m"]) == (10.5, 12_300)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("PNA", "gl300", {"alarm": "power_on"}),
        ("PFA", "gl300", {"alarm": "power_off"}),
        ("BTC", "", {"charging": True}),
        ("STC", ",x", {"charging": False, "data": "x"}),
        ("BAT", ",0,,97,4.10,0,1", {"battery_percent": 97, "battery_v": 4.1, "charging": False}),
        ("BAT", ",0,,,4.10,0,1", {"battery_v": 4.1, "charging": False}),
        ("CSQ", ",16,0", {"gsm_signal": 16}),
        ("CSQ", ",99,0", {}),
        ("CID", ",898600810906F8048812", {"iccid": "898600810906F8048812"}),
        (
            "WIF",
            ",2,c413e200ff14,-39,,,,C413E2010E55,-62,,,,,,,,100",
            {
                "wifi": [{"mac": "c413e200ff14", "level": -39}, {"mac": "c413e2010e55", "level": -62}],
                "battery_percent": 100,
            },
        ),
        ("VER", ",GL300,0100,0101", {"data": "GL300,0100,0101"}),
        (
            "INF",
            ",16,898600810906F8048812,16,0,1,11870,,4.1,0,0,0,,20090214013254,,12340,,00,00,+0800,0",
            {
                "motion": True,
                "ignition": False,
                "iccid": "898600810906F8048812",
                "gsm_signal": 16,
                "external_power": True,
                "external_v": 11.87,
                "battery_v": 4.1,
                "charging": False,
                "data": "0,0,,20090214013254,,12340,,00,00,+0800,0",
            },
        ),
        (
            "FRI",
            ",0,0,1,0,,,,,,,0460,0000,18d8,6141,00,79",
            {
                "battery_percent": 79,
                "cells": [{"mcc": 460, "mnc": 0, "lac": 0x18D8, "cid": 0x6141}],
                "data": "0,0,1,0,,,,,,,0460,0000,18d8,6141,00,79",
            },
        ),
        (
            "STR",
            "GL500,0,1,2,-21.8,90,0,,,,,,,,,,,,",
            {"temperature_c": -21.8, "battery_percent": 90, "data": "0,1,2,-21.8,90,0,,,,,,,,,,,,"},
        ),
        (
            "LBS",
            "GL50,0,0,92,,2,,,0000,0204,0008,0cee,b951,18,,,,,,,,0204,0008,0cee,d071,,",
            {
                "battery_percent": 92,
                "cells": [
                    {"mcc": 204, "mnc": 8, "lac": 0xCEE, "cid": 0xB951, "level": 18},
                    {"mcc": 204, "mnc": 8, "lac": 0xCEE, "cid": 0xD071},
                ],
            },
        ),
        ("DTT", ",,,1,16," + b"COMB,0,94.5,-1.0".hex(), {"fuel": 94.5, "data": b"COMB,0,94.5,-1.0".hex()}),
        ("DTT", ",,,1,2,4142", {"data": "4142"}),
        ("FRI", ",,0,1,,,,,,,,,,,,0,0,,98,1,0,,", {"battery_percent": 98, "data": ",0,1,,,,,,,,,,,,0,0,,98,1,0,,"}),
        (
            "INF",
            ",41,,31,0,0,17.7,,3.87,0,1,1,,,20170802150751,70,,48.0",
            {
                "motion": False,
                "gsm_signal": 31,
                "external_power": False,
                "odometer_m": 17_700,
                "battery_v": 3.87,
                "battery_percent": 70,
                "charging": False,
                "data": "1,1,,,20170802150751,70,,48.0",
            },
        ),
        (
            "CAN",
            "gv65,0,1,C03FFFFF,WVWZZZ1JZXW000001,2,H89394,63.14,200,3,87,L/H1.5,P43.60,0,4,17.53,11.61",
            {
                "vin": "WVWZZZ1JZXW000001",
                "ignition": True,
                "odometer_m": 8_939_400,
                "rpm": 200,
                "obd_speed_kmh": 3,
                "coolant_c": 87,
                "fuel_l_per_h": 1.5,
                "fuel_percent": 43.6,
                "throttle_percent": 4,
                "engine_hours": 17.53,
                "data": "0,1,C03FFFFF,WVWZZZ1JZXW000001,2,H89394,63.14,200,3,87,L/H1.5,P43.60,0,4,17.53,11.61",
            },
        ),
    ],
)
def test_messages_without_a_fix(name: str, values: str, expected: dict[str, object]) -> None:
    record = record_of(Gl200, message(name, values))
    assert record.latitude is None
    assert record.timestamp_us == moment(2009, 2, 14, 9, 32, 54)
    assert attributes(record) == {"type": name, **expected}


def test_times() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert record_of(Gl200, message("PNA", ""), timezone=berlin).timestamp_us == moment(2009, 2, 14, 8, 32, 54)
    fixed = record_of(Gl200, message("FRI", f",0,0,1,{FIX},00,"), timezone=berlin)
    assert fixed.timestamp_us == moment(2009, 2, 14, 1, 32, 54), "of fixes it is UTC"
    assert record_of(Gl200, message("PNA", "", tail=",11F0")).timestamp_us == NOW_US
    for tail in ("00000000000000,11F0", "20091314093254,11F0", "20991214093254,11F0"):
        assert isinstance(only(Gl200, message("PNA", "", tail=tail)), Rejected)


def test_the_oldest_devices_have_their_version_last() -> None:
    [found] = conversation(Gl200, [f"+RESP:GTPNA,{ID},20090101000000,11F0,0102070202$".encode()])
    [(device_id, record)] = found.records
    assert (device_id, record.timestamp_us) == (ID, moment(2009, 1, 1))


# Answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "answer", "all_answered"),
    [
        (message("HBD", "", "ACK"), b"+SACK:GTHBD,1A0102,11F0$", b"+SACK:GTHBD,1A0102,11F0$"),
        (message("FRI", f",0,0,1,{FIX},00,"), b"", b"+SACK:11F0$"),
        (message("FRI", f",0,0,1,{FIX},00,", "BUFF"), b"", b"+SACK:11F0$"),
        (message("QSS", ",0001", "ACK"), b"", b""),
    ],
)
def test_answers(frame: bytes, answer: bytes, all_answered: bytes) -> None:
    for answers_all, expected in ((False, answer), (True, all_answered)):
        found = only(Gl200, frame, answers_all=answers_all)
        assert isinstance(found, Received)
        assert found.stored == expected
        assert len(found.records) == 1


def test_a_heartbeat_is_no_position() -> None:
    record = record_of(Gl200, message("HBD", "", "ACK"))
    assert (record.latitude, record.timestamp_us) == (None, moment(2009, 2, 14, 9, 32, 54))
    assert attributes(record) == {"type": "HBD"}
    assert attributes(record_of(Gl200, message("QSS", "gl,0001", "ACK"))) == {"type": "QSS", "result": "gl,0001"}


def test_what_can_never_be_stored_does_not_block_its_device() -> None:
    frame = message("FRI", f",0,0,1,{FIX.replace('31.222073', '91.222073')},00,")
    unanswered, answered = only(Gl200, frame), only(Gl200, frame, answers_all=True)
    assert isinstance(unanswered, Rejected)
    assert isinstance(answered, Received)
    assert (answered.records, answered.stored, answered.aside[0].raw) == ([], b"+SACK:11F0$", frame)


# Where messages end ----------------------------------------------------------------------------------


def test_ends() -> None:
    frame = message("FRI", f",0,0,1,{FIX},00,")
    expected = conversation(Gl200, [frame])
    for end in (b"\0", b"", b"\r\n", b"$\r\n"):
        assert conversation(Gl200, [frame[:-1] + end]) == expected
    assert conversation(Gl200, [frame[:-1] + frame]) == expected * 2, "the next one's head ends it too"


def test_without_an_end_mark_it_ends_with_silence() -> None:
    frame = message("FRI", f",0,0,1,{FIX},00,")
    decoder = Gl200(Options())
    for at in range(1, len(frame) - 1):
        decoder.feed(frame[at - 1 : at], ARRIVAL)
        assert not decoder.waits_for_quiet
        assert decoder.quiet(ARRIVAL) == []
    assert decoder.feed(frame[-2:-1], ARRIVAL) == []
    assert decoder.waits_for_quiet
    assert outcomes(decoder.quiet(ARRIVAL)) == conversation(Gl200, [frame])


@pytest.mark.parametrize(
    "frame",
    [
        message("FRI", f",0,0,1,{FIX},00,")[:-2],
        b"+RESP:FRI,1A0102,135790246811220,,20090214093254,11F0$",
        b"+RESP:GTFRI,1A0102$",
        b"+RESP:GTFRI,1A0102,no id,,20090214093254,11F0$",
        message("FRI", f",0,0,1,{FIX.replace('4.3', 'x')},00,"),
        b"+RSP\x01\x02\x03$",
    ],
)
def test_broken_messages(frame: bytes) -> None:
    found = only(Gl200, frame)
    assert isinstance(found, Rejected)
    assert (found.answer, found.aside[0].raw) == (b"", frame)


NAMES = ("FRI", "ERI", "CAN", "OBD", "INF", "LBS", "WIF", "GSM", "IGN", "STR", "DTT", "BID", "BAA", "IDA", "STT", "BAT")
ODD = (
    "",
    "0",
    "1",
    "-1",
    "100",
    "1.5",
    "00001:30:00",
    "20090214013254",
    "FFFF",
    "0000000F",
    "C413E200FF14",
    "-39",
    FIX,
)


@settings(max_examples=500, deadline=None)
@given(name=st.sampled_from(NAMES), values=st.lists(st.sampled_from(ODD), max_size=20))
def test_any_values_of_any_message_are_taken_or_refused(name: str, values: list[str]) -> None:
    decoder = Gl200(Options())
    messages = decoder.feed(message(name, ",".join(values)) + message("FRI", f",0,0,1,{FIX},00,"), ARRIVAL)
    assert len(messages) == 2
    assert isinstance(messages[1], Received)
