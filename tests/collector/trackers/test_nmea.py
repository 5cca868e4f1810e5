"""NMEA sentences: ids, checksums, one record per second, and sentences without a date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.framing.decoder import Received, Rejected
from collector.framing.frame_decoder import Options
from collector.trackers.checksums import xor
from collector.trackers.nmea import Nmea
from telemetry.codec.record_parser import Arrival
from tests.collector.protocols.three_ways import ARRIVAL, NOW_US
from tests.collector.protocols.trackers import Outcome, attributes, conversation, moment, only, outcomes, record_of

RMC = "GPRMC,094907.000,A,6000.5332,N,03020.5192,E,1.17,60.26,091111,,"
GGA = "GPGGA,094907.000,6000.5332,N,03020.5192,E,1,08,1.0,12.5,M,16.2,M,,"
ID = b"IMEI 359853000144328\r\n"


def sentence(body: str, prefix: str = "") -> bytes:
    return f"{prefix}${body}*{xor(body.encode()):02X}\r\n".encode()


def records(*lines: bytes, arrival: Arrival = ARRIVAL, **options: str) -> list[Outcome]:
    decoder = Nmea(Options(**options))  # type: ignore[arg-type]
    return outcomes([*decoder.feed(b"".join(lines), arrival), *decoder.eof(arrival)])


def test_a_record_of_a_second() -> None:
    for lines in ([RMC, "GPVTG,60.26,T,,M,1.17,N", GGA, "GPGSV,3,1,11"], [GGA, "GPGSA,A,3", RMC]):
        [found] = records(ID, *map(sentence, lines))
        [(device_id, record)] = found.records
        assert device_id == "359853000144328"
        assert (record.source, record.timestamp_us) == ("nmea", moment(2011, 11, 9, 9, 49, 7))
        assert record.latitude == pytest.approx(60.00888667)
        assert record.longitude == pytest.approx(30.34198667)
        assert (record.altitude_m, record.heading_deg) == (12.5, 60.26)
        assert record.speed_kmh == pytest.approx(1.17 * 1.852)
        assert attributes(record) == {"satellites": 8, "hdop": 1.0}
        assert (found.answer, found.aside, found.last) == (b"", [], False)


def test_it_comes_with_the_next_second_with_silence_or_with_the_end() -> None:
    decoder = Nmea(Options(answers_all=True))
    assert not decoder.waits_for_quiet
    assert decoder.feed(ID + sentence(RMC), ARRIVAL) == []
    assert decoder.waits_for_quiet
    assert decoder.waits_for_more
    [first] = decoder.feed(sentence(RMC.replace("094907", "094908")), ARRIVAL)
    assert isinstance(first, Received)
    assert (len(first.records), first.stored) == (1, b"OK1\r\n")
    assert decoder.feed(b"$GP", ARRIVAL) == []
    assert not decoder.waits_for_quiet, "a sentence has begun"
    assert decoder.waits_for_more
    assert decoder.feed(b"GSV\n", ARRIVAL) == []
    [second] = decoder.quiet(ARRIVAL)
    assert isinstance(second, Received)
    assert not decoder.waits_for_quiet
    assert not decoder.waits_for_more
    assert decoder.held_bytes == 0
    assert decoder.quiet(ARRIVAL) == decoder.eof(ARRIVAL) == []


def test_what_comes_late_of_a_second_makes_a_record_of_all() -> None:
    decoder = Nmea(Options())
    decoder.feed(ID + sentence(RMC), ARRIVAL)
    decoder.quiet(ARRIVAL)
    decoder.feed(sentence(RMC), ARRIVAL)
    assert decoder.quiet(ARRIVAL) == [], "nothing new"
    decoder.feed(sentence(GGA), ARRIVAL)
    [found] = outcomes(decoder.quiet(ARRIVAL))
    assert found.records == records(ID, sentence(RMC), sentence(GGA))[0].records


@pytest.mark.parametrize(
    ("body", "has_fix"),
    [
        (RMC, True),
        (RMC.replace(",A,", ",V,"), False),
        (RMC + ",N", False),
        (RMC + ",A", True),
        (GGA, True),
        (GGA.replace(",E,1,", ",E,0,"), False),
        ("GPGLL,6000.5332,N,03020.5192,E,094907,A", True),
        ("GNGLL,6000.5332,N,03020.5192,E,094907,V", False),
        ("BDRMC,094907,A,0000.0000,N,00000.0000,E,0.0,,091111,,", False),
        ("GAGGA,094907,0000.0000,N,00000.0000,E,1,07,1.0,0.0,M,,M,,", True),
    ],
)
def test_what_is_no_fix_is_kept(body: str, has_fix: bool) -> None:
    [found] = records(ID, sentence(body))
    assert found.records[0][1].latitude is not None
    assert found.records[0][1].has_fix == has_fix


def test_two_that_differ_are_no_fix() -> None:
    unsure = sentence(GGA.replace(",E,1,", ",E,0,"))
    for lines in ([sentence(RMC), unsure], [unsure, sentence(RMC)]):
        [found] = records(ID, *lines)
        assert not found.records[0][1].has_fix


def test_without_coordinates_it_is_a_sign_of_life() -> None:
    [found] = records(ID, sentence("GPRMC,,V,,,,,,,,,,N"), sentence("GPGGA,,,,,,0,00,99.99,,,,,,"))
    [(_, record)] = found.records
    assert (record.latitude, record.timestamp_us) == (None, NOW_US)


# Lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "prefix", "expected"),
    [
        (b"$PGID,359853000144328*0F\r\n", "", "359853000144328"),
        (b"IMEI 359853000144328\n", "", "359853000144328"),
        (b"IMEI:359853000144328\n", "", "359853000144328"),
        (b"$IMEI,359853000144328\n", "", "359853000144328"),
        (b"$GPFID,ID123456ABC\n", "", "ID123456ABC"),
        (b"3598530001\n", "", "3598530001"),
        (b"", "359853000144328", "359853000144328"),
        (b"", "990000561287964,", "990000561287964"),
        (b"", "4711/022789000688081/", "022789000688081"),
        (b"", "van 7/", "van 7"),
        (b"IMEI 1\n", "IMEI 2,", "2"),
        (b"", "", "192.0.2.7"),
    ],
)
def test_ids(before: bytes, prefix: str, expected: str) -> None:
    [found] = records(before, sentence(RMC, prefix), address="192.0.2.7")
    assert found.records[0][0] == expected


def test_an_id_may_follow_its_sentence() -> None:
    [found] = records(sentence(RMC), b"$GPFID,ID123456ABC\r\n")
    assert found.records[0][0] == "ID123456ABC"


def test_devices_on_one_connection_are_kept_apart() -> None:
    found = records(sentence(RMC, "a1,"), sentence(GGA, "b2,"), sentence(RMC, "b2,"), b"IMEI c3\n", sentence(GGA))
    told_of = [(device_id, record.speed_kmh is None) for one in found for device_id, record in one.records]
    assert told_of == [("a1", False), ("b2", False), ("c3", True)]
    assert found[2].records[0][1].timestamp_us == moment(2026, 11, 24, 9, 49, 7), "the day is not another device's"


def test_without_any_id_it_is_set_aside() -> None:
    [found] = records(sentence(RMC))
    assert found.records == []
    assert found.aside == [("", sentence(RMC).replace(b"\r\n", b"\n"))]


def test_checksums() -> None:
    good = sentence(RMC)
    for bad in (good.replace(b"6000", b"6001"), good[:-4] + b"00\r\n", good.replace(b"$GP", b"$GN")):
        decoder = Nmea(Options(address="a"))
        [message] = decoder.feed(bad, ARRIVAL)
        assert isinstance(message, Rejected)
        assert "checksum" in message.reason
        assert not message.last
        assert decoder.feed(good, ARRIVAL) == []
        assert len(decoder.eof(ARRIVAL)) == 1
    [found] = records(ID, f"${RMC}\r\n".encode())
    assert found.records, "one without a checksum is taken"


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "$",
        "no$",
        "/$GPRMC,",
        "$GPRMC,1*2",
        "$GPRMC,094907,A,60x,N,030,E",
        "$GPRMC,094907,A,6061.0,N,03020.0,E",
    ],
)
def test_broken_lines_cost_only_themselves(line: str) -> None:
    found = conversation(Nmea, [ID, line.encode() + b"\r\n", sentence(RMC)])
    assert found[-1].records
    assert found[0].aside


def test_a_line_without_end_ends_the_connection_behind_the_last_record() -> None:
    found = records(ID, sentence(RMC), b"x" * 2_000)
    assert [(len(one.records), one.last) for one in found] == [(1, False), (0, True)]


# Days ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "now", "expected"),
    [
        ("235959.50", (2026, 11, 24, 0, 0, 3), (2026, 11, 23, 23, 59, 59)),
        ("000001.50", (2026, 11, 23, 23, 59, 58), (2026, 11, 24, 0, 0, 1)),
    ],
)
def test_a_time_alone_is_the_one_nearest_to_arrival(
    clock: str, now: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    [found] = records(ID, sentence(GGA.replace("094907.000", clock)), arrival=Arrival(moment(*now)))
    assert found.records[0][1].timestamp_us == moment(*expected) + 500_000


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.datetimes(datetime(2001, 1, 1), datetime(2026, 1, 1)), st.lists(st.integers(1, 40_000), max_size=6))
def test_or_nearest_to_the_last_record(start: datetime, steps: list[int]) -> None:
    """So what a device had to keep stays on its days, over every midnight."""
    at = start.replace(microsecond=0)
    lines, expected = [sentence(f"GPRMC,{at:%H%M%S},A,6000.5332,N,03020.5192,E,1,2,{at:%d%m%y},,")], [at]
    for step in steps:
        at += timedelta(seconds=step)
        lines.append(sentence(GGA.replace("094907.000", f"{at:%H%M%S}")))
        expected.append(at)
    found = records(ID, *lines)
    times = [record.timestamp_us for one in found for _, record in one.records]
    assert times == [round(one.replace(tzinfo=UTC).timestamp()) * 1_000_000 for one in expected]


@pytest.mark.parametrize("change", [("091111", "991311"), ("094907.000", "250000"), ("094907.000", "9:49")])
def test_dates_that_are_none(change: tuple[str, str]) -> None:
    found = records(ID, sentence(RMC.replace(*change)), sentence(GGA.replace("094907", "094908")))
    assert found[0].aside[0][0] == "359853000144328"
    assert found[1].records


@pytest.mark.parametrize(
    ("line", "altitude", "expected"),
    [
        (
            sentence(
                "PUBX,00,120000.00,4100.49200,N,02858.70400,E,35.0,D3,4.1,5.2,36.0,270.0,-0.054,7.0,0.88,1.21,0.88,9,0"
            ),
            35,
            {"satellites": 9, "hdop": 0.88},
        ),
        (
            sentence("TRCCR,20260301120000.000,A,41.008200,28.978400,19.4384,270.0,35.0,50,"),
            35,
            {"battery_percent": 50},
        ),
        (b"QZE,356307042441013,35,01032026,120000,41.00820,28.97840,36,270,A,1", None, {"ignition": True}),
    ],
)
def test_makers_own_sentences(line: bytes, altitude: float | None, expected: dict[str, object]) -> None:
    at_us = moment(2026, 3, 1, 12, 1)
    record = record_of(Nmea, line + b"\n", Arrival(at_us, at_us), address="192.0.2.1")
    assert (round(record.latitude or 0, 4), round(record.longitude or 0, 4)) == (41.0082, 28.9784)
    assert (round(record.speed_kmh or 0, 2), record.heading_deg, record.altitude_m) == (36, 270, altitude)
    assert (record.timestamp_us, record.has_fix) == (moment(2026, 3, 1, 12), True)
    assert attributes(record) == expected


def test_sentences_of_other_makers_that_tell_no_place() -> None:
    lines = [sentence("PUBX,03,11,23"), sentence("PUBX,00,120000"), sentence("GPTXT,NET,1003,A1")]
    assert conversation(Nmea, lines) == []


def test_an_id_behind_the_checksum() -> None:
    line = (
        sentence("GPRMC,120000.000,A,4100.4920,N,02858.7040,E,0.00,0.53,010326,D").strip()
        + b",11,356307042441013,1,090\n"
    )
    message = only(Nmea, line)
    assert isinstance(message, Received)
    assert message.records[0].device_id == "356307042441013"
