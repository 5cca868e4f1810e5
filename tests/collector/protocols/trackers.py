"""Frames of each tracker protocol, and the decoder's results as comparable values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from collector.framing.decoder import Message, Received
from collector.framing.frame_decoder import Framed, Options
from collector.trackers.gl200.decoder import Gl200
from collector.trackers.gps103 import Gps103
from collector.trackers.gt06.decoder import Gt06
from collector.trackers.h02 import H02
from collector.trackers.nmea import Nmea
from collector.trackers.teltonika.decoder import Teltonika
from collector.trackers.tk103 import Tk103
from telemetry.codec.record_parser import Arrival
from telemetry.model.record import Record
from tests.collector.protocols.three_ways import ARRIVAL


class Tracker(NamedTuple):
    """A protocol: its decoder, and frames that one connection may send after one another, good and bad."""

    make: Callable[[Options], Framed]
    frames: tuple[bytes, ...]


def named(make: Callable[[Options], Framed]) -> Callable[[Options], Framed]:
    """A decoder of a device that has named itself already."""

    def make_named(options: Options) -> Framed:
        decoder = make(options)
        decoder.device_id = "356307042441013"
        return decoder

    return make_named


TRACKERS = {
    "teltonika": Tracker(
        named(Teltonika),
        (
            bytes.fromhex("ff"),
            bytes.fromhex("000f333536333037303432343431303133"),
            bytes.fromhex("000000000000002108010000019ca9450a00011145c0c018715ad00023010e090024000000000000010000b7a4"),
            bytes.fromhex("000000000000002108010000019ca9450a00011145c0c018715ad00023010e0900240000000000000100000007"),
            bytes.fromhex(
                "000000000000006908030000019ca9450a00011145c0c018715ad00023010e09002400000000000000000000000000"
                "00011145c0c018715ad00023010e0900240000000000000000019ca9450a00011145c0c018715ad00023010e000024"
                "ef0402ef01f0000142316a01100012d6870003000041ad"
            ),
            bytes.fromhex("000000000000002108010000019ca9450de8011145c0c018715ad00023010e0900240000000000000100006125"),
        ),
    ),
    "gt06": Tracker(
        named(Gt06),
        (
            bytes.fromhex("78780f0103563070424410130036000101ff0d0a"),
            bytes.fromhex("78781f121a03010c0000c9046652e8031bea6024150e011e01123400abcd000218590d0a"),
            bytes.fromhex("78781f121a03010c0000c9046652e8031bea6024150e011e01123400abcd000200000d0a"),
            bytes.fromhex("78781f12000000000000c9046652e8031bea6024150e011e01123400abcd000355fb0d0a"),
            bytes.fromhex("787825161a03010c0000c9046652e8031bea6024150e09011e01123400abcd4606040102000489170d0a"),
            bytes.fromhex("78780a13460403000100051ba50d0a"),
            bytes.fromhex("79790008940004d20006274c0d0a"),
            bytes.fromhex("006a756e6b"),
            bytes.fromhex("787822221a03010c0000c9046652e8031bea6024150e011e01123400abcd01000100077c900d0a"),
        ),
    ),
    "h02": Tracker(
        H02,
        (
            b"*HQ,4106012736,V1,120000,A,4100.4920,N,02858.7040,E,019.44,270,010326,FFFFFBFF,286,01,4660,43981#\r\n",
            bytes.fromhex("2441060116601245431311165035313006004318210e000000fffffbffff0024"),
            b"*HQ,4106012736,V1,250000,A,4100.4920,N,02858.7040,E,0,0,010326,FFFFFBFF#",
            bytes.fromhex("2441060116601246431311165035313006004318210e000000fffffbffff0024"),
            b"*HQ,4106012736,HTBT,90#",
            b"noise*HQ,41,V1,lost its end",
            b"*HQ,4106012736,NBR,110326,262,03,255,1,802,23152,23,081116,FFFFFBFF#",
        ),
    ),
    "gps103": Tracker(
        Gps103,
        (
            b"##,imei:359586015829802,A;",
            b"359586015829802;",
            b"imei:359586015829802,acc on,1402230659,,F,065907.000,A,2456.2591,N,06708.8335,E,7.53,76.10,,1,0,0.03%,,;",
            b"imei:359586015829802,tracker,1402230659,,F,065907.000,A,nonsense,N,06708.8335,E,7.53,76.10;\r\n",
            b"imei:359586015829802,tracker,1499991159,,L,,,fa8,,c9af;",
            b"imei:359586015829802,help me,000000000,13554900601,L,;",
            b"imei:359586015829802,OBD,180301094003,5000000,0.00,0.00,98,18,68.63%,55,25.10%,1368,14.24,,,,;",
        ),
    ),
    "tk103": Tracker(
        Tk103,
        (
            b"(012345678901BP00000012345678901HSO)",
            b"(012345678901BP05000012345678901130520A3439.9629S05826.3504W000.1175622323.8700000000L000450AC)",
            b"(012345678901BR00139920A3439.9629S05826.3504W000.1175622323.8700000000L000450AC)",
            b"(013632651491,ZC20,040613,040137,6,421,112,0)\r\n",
            b"(lost its end",
            b"(013632651491,ZC03,040613,040137,$smile :)$)",
        ),
    ),
    "gl200": Tracker(
        Gl200,
        (
            b"+ACK:GTHBD,1A0401,135790246811220,,20100214093254,11F0$",
            b"+RESP:GTFRI,1A0900,860599000306845,G3,0,0,2,1,2.1,0,426.7,8.611466,47.681639,20181214134603,0228,0001,077F,"
            b"4812,25.2,1,5.7,34,437.3,8.611600,47.681846,20181214134619,0228,0001,077F,4812,25.2,83,20181214134702,0654$",
            b"+BUFF:GTIGN,060228,862170018767162,,1200,1,0.0,0,29.1,31.5,30.1,20991302150406,,,,,00,,2.0,20170802150406,0A$",
            b"+RESP:GTSOS,02,1,cut\0",
            b"+RESP:GTINF,1A0800,860599000773978,GL300,41,89701016426133851978,17,0,1,26.6,,3.90,1,1,,20161004040811,022C$",
        ),
    ),
    "nmea": Tracker(
        Nmea,
        (
            b"$PGID,359853000144328*0F\r\n",
            b"$GPRMC,094907.000,A,6000.5332,N,03020.5192,E,1.17,60.26,091111,,*33\r\n",
            b"$GPGGA,094907.000,6000.5332,N,03020.5192,E,1,08,1.0,12.5,M,,,,\r\n",
            b"$GPRMC,094908.000,A,6000.5332,N,03020.5192,E,1.17,60.26,091111,,*00\r\n",
            b"$GPGSV,3,1,11\n",
            b"4711/022789000688081/$GPRMC,133343,A,5308.56325,N,1029.12850,E,0.0,0.0,290316,,*2A\n",
            b"$GNRMC,133344,A,5308.56325,N,1029.12850,E,0.0,0.0,991316,,\n",
            b"990000561287964,$GNGLL,5308.56325,N,1029.12850,E,133345,A\n",
        ),
    ),
}


class Outcome(NamedTuple):
    """Outcome of a message: records, the reply once they are stored, rejected records, whether it is the last."""

    records: list[tuple[str, Record]]
    answer: bytes
    aside: list[tuple[str, bytes]]
    last: bool


def outcomes(messages: Iterable[Message]) -> list[Outcome]:
    """The messages as values that compare; how much of a stream had come when it was out of step is chance."""
    return [
        Outcome(
            [(sent.device_id, sent.record) for sent in message.records] if isinstance(message, Received) else [],
            message.stored if isinstance(message, Received) else message.answer,
            [] if message.last else [(aside.device_id, aside.raw) for aside in message.aside],
            message.last,
        )
        for message in messages
    ]


def conversation(make: Callable[[Options], Framed], pieces: Iterable[bytes]) -> list[Outcome]:
    """All outcomes of a connection that sends these pieces and ends. Checks the decoder's bounds."""
    decoder = make(Options())
    messages: list[Message] = []
    for piece in pieces:
        messages += decoder.feed(piece, ARRIVAL)
        assert decoder.held_bytes <= 2 * decoder.MAX_FRAME_BYTES
        assert decoder.is_mid_message == bool(decoder._buffer)
    if messages and messages[-1].last:
        assert decoder.feed(b"*HQ,1,V1#", ARRIVAL) == []
    messages += decoder.eof(ARRIVAL)
    assert not decoder.is_mid_message
    assert not any(message.last for message in messages[:-1]), "nothing follows what is the last"
    return outcomes(messages)


def only(make: Callable[[Options], Framed], frame: bytes, arrival: Arrival = ARRIVAL, **options: Any) -> Message:
    """The outcome of one frame, or of the end after it, on a separate connection."""
    decoder = make(Options(**options))
    [message] = [*decoder.feed(frame, arrival), *decoder.eof(arrival)]
    return message


def record_of(make: Callable[[Options], Framed], frame: bytes, arrival: Arrival = ARRIVAL, **options: Any) -> Record:
    """The one record of a frame."""
    message = only(make, frame, arrival, **options)
    assert isinstance(message, Received), message
    [sent] = message.records
    return sent.record


def records(messages: Iterable[Message]) -> list[Record]:
    """The records of messages."""
    return [sent.record for message in messages if isinstance(message, Received) for sent in message.records]


def attributes(record: Record) -> dict[str, Any]:
    """The attributes of a record."""
    found: dict[str, Any] = json.loads(record.attributes or "{}")
    return found


def moment(*parts: int) -> int:
    """µs since the epoch of year, month, day and perhaps hour, minute and second, UTC."""
    return round(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]
