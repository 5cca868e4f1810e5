"""From bytes to records: µs a record of 8 fields, in messages of 1,000, for each protocol of the TCP port; and for each
protocol of trackers and of posts, whose frames and requests hold one record as a rule.

python -m benchmarks.decoders [--json FILE]
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from benchmarks import report
from benchmarks.report import Result
from benchmarks.trackers import packet
from collector.framing.decoder import Decoder, Received
from collector.framing.frame_decoder import Framed, Options
from collector.http_protocols import BY_NAME
from collector.http_protocols.protocol import Post
from collector.protocols import PROTOCOLS, MessageLimits
from collector.trackers.checksums import crc16_x25
from collector.trackers.gl200.decoder import Gl200
from collector.trackers.gps103 import Gps103
from collector.trackers.gt06.decoder import Gt06
from collector.trackers.h02 import H02
from collector.trackers.nmea import Nmea
from collector.trackers.teltonika.decoder import Teltonika
from collector.trackers.tk103 import Tk103
from telemetry.codec.record_parser import Arrival

NOW_US = 1_795_500_000_000_000
RECORDS = 1_000
ROUNDS = 50
TURN_BYTES = 16 * 2**10
LIMITS = MessageLimits(2**20, 100_000)


class Tracker(NamedTuple):
    """A decoder, and what makes the frame of a record that was made so many seconds after noon."""

    make: Callable[[Options], Framed]
    frame: Callable[[int], bytes]


def text(form: str) -> Callable[[int], bytes]:
    """A frame of text, with `{0:04}` where minute and second belong."""
    return lambda second: form.format(100 * (second // 60 % 60) + second % 60).encode()


def teltonika(second: int) -> bytes:
    """Codec 8, one record with eight values."""
    return packet(second, NOW_US // 1_000 + 1_000 * second)


def gt06(second: int) -> bytes:
    """A location (12) with its cell."""
    clock = bytes((26, 3, 1, 12, second // 60 % 60, second % 60))
    body = bytes.fromhex("1f12") + clock + bytes.fromhex("c9046652e8031bea6024150e011e01123400abcd")
    body += second.to_bytes(2, "big")
    return b"xx" + body + crc16_x25(body).to_bytes(2, "big") + b"\r\n"


TRACKERS = {
    "teltonika": Tracker(Teltonika, teltonika),
    "gt06": Tracker(Gt06, gt06),
    "h02": Tracker(
        H02, text("*HQ,4106012736,V1,12{0:04},A,4100.4920,N,02858.7040,E,019.44,270,010326,FFFFFBFF,286,01,4660,43981#")
    ),
    "gps103": Tracker(
        Gps103,
        text(
            "imei:359710041641581,tracker,2603011159,,F,06{0:04}.000,A,2456.2591,N,06708.8335,E,7.53,76.10,,1,0,0.03%,,;"
        ),
    ),
    "tk103": Tracker(Tk103, text("(012345678901BR00260301A3439.9629S05826.3504W000.117{0:04}323.8700000000L000450AC)")),
    "gl200": Tracker(
        Gl200,
        text(
            "+RESP:GTFRI,1A0900,860599000306845,G3-313,0,0,1,1,2.1,0,426.7,8.611466,47.681639,2026030113{0:04},0228,0001,"
            "077F,4812,25.2,83,20260301134702,0654$"
        ),
    ),
    "nmea": Tracker(
        Nmea,
        text(
            "359853000144328,$GPRMC,12{0:04},A,6000.5332,N,03020.5192,E,1.17,60.26,010326,,\n"
            "$GPGGA,12{0:04},6000.5332,N,03020.5192,E,1,08,1.0,12.5,M,,,,\n"
        ),
    ),
}
"""Name → what a device of this protocol sends most."""

POSITION = {
    "id": 7,
    "deviceId": 3,
    "protocol": "gt06",
    "serverTime": "2026-03-01T12:00:01.000+00:00",
    "deviceTime": "2026-03-01T12:00:00.000+00:00",
    "fixTime": "2026-03-01T12:00:00.000+00:00",
    "valid": True,
    "latitude": 41.0082,
    "longitude": 28.9784,
    "altitude": 35.0,
    "speed": 19.438,
    "course": 270.0,
    "accuracy": 0.0,
    "attributes": {"sat": 9, "ignition": True, "distance": 12.5, "totalDistance": 1234567.0, "motion": True},
}
FIELDS = "lat=41.0082,lon=28.9784,altitude=35,speed=36,heading=270,fuel=61i"
LINES = "\n".join(f"gps,device_id=van-{n % 100} {FIELDS} {1_772_366_400 + n}000000000" for n in range(RECORDS))
POSTS = {
    "osmand": Post(
        (),
        {"content-type": "application/x-www-form-urlencoded"},
        b"id=dev1&lat=41.0082&lon=28.9784&timestamp=1772366400&speed=19.438&bearing=270&altitude=35&accuracy=5&batt=83",
    ),
    "owntracks": Post(
        (),
        {},
        b'{"_type":"location","tid":"d1","topic":"owntracks/u/d1","lat":41.0082,"lon":28.9784,"tst":1772366400,'
        b'"vel":36,"cog":270,"alt":35,"acc":5,"batt":83}',
    ),
    "traccar": Post(
        (), {}, json.dumps({"position": POSITION, "device": {"id": 3, "uniqueId": "356307042441013"}}).encode()
    ),
    "influx": Post((), {}, LINES.encode()),
}
"""Protocol over HTTP → a request of its senders."""


def values() -> list[dict[str, object]]:
    """As a tracker sends them; `fuel` is an attribute."""
    return [
        {
            "device_id": f"van-{n % 100}",
            "timestamp": 1_795_478_400.5 + n,
            "latitude": 53.4 + n * 1e-5,
            "longitude": -2.9 - n * 1e-5,
            "altitude": 33.5,
            "speed": 48.5,
            "heading": 120,
            "fuel": 61,
        }
        for n in range(RECORDS)
    ]


def messages() -> dict[str, bytes]:
    """The same message in each protocol."""
    content: bytes = msgpack.packb([1, "gateway", 1, values()])
    return {
        "json": json.dumps(values()).encode() + b"\n",
        "msgpack": msgpack.packb(values()),
        "frames": len(content).to_bytes(4, "big") + content,
    }


def frames(tracker: Tracker) -> bytes:
    """Many frames of one connection, each of another second."""
    return b"".join(map(tracker.frame, range(RECORDS)))


def known(make: Callable[[Options], Framed]) -> Framed:
    """The decoder of a device that has named itself."""
    decoder = make(Options())
    decoder.device_id = "356307042441013"
    return decoder


def us_a_post(name: str, post: Post) -> tuple[float, int]:
    """Of the processor, for one request, the best of some rounds; and how many records it has."""
    best = float("inf")
    read, records = BY_NAME[name], 0
    for _ in range(ROUNDS):
        count = 1 if name == "influx" else RECORDS
        start_s = time.process_time()
        for _ in range(count):
            told = read(post, Options(transport="http"), Arrival(NOW_US))
        best = min(best, (time.process_time() - start_s) / count)
        assert not told.aside, name
        records = len(told.records)
    return 1e6 * best, records


def us_a_record(name: str, make: Callable[[], Decoder], data: bytes) -> float:
    """Of the processor, the best of some rounds, each received in turns as from a socket."""
    best = float("inf")
    for _ in range(ROUNDS):
        decoder, found = make(), []
        start_s = time.process_time()
        for at in range(0, len(data), TURN_BYTES):
            found += decoder.feed(data[at : at + TURN_BYTES], Arrival(NOW_US))
        found += decoder.eof(Arrival(NOW_US))
        best = min(best, time.process_time() - start_s)
        assert all(isinstance(one, Received) for one in found), name
        assert sum(len(one.records) for one in found if isinstance(one, Received)) == RECORDS, name
    return 1e6 * best / RECORDS


def main() -> None:
    """Run and print."""
    args = report.parser(__doc__).parse_args()
    results = []
    for name, data in messages().items():
        results.append(
            Result(f"decode_{name}", us_a_record(name, lambda: PROTOCOLS["any"](LIMITS), data), "µs a record")
        )
        results.append(Result(f"size_{name}", len(data) / RECORDS, "bytes a record"))
    for name, tracker in TRACKERS.items():
        us = us_a_record(name, lambda make=tracker.make: known(make), frames(tracker))  # type: ignore[misc]
        results.append(Result(f"decode_{name}", us, "µs a record"))
        results.append(Result(f"frames_{name}", 1e6 / us, "frames/s"))
    for name, post in POSTS.items():
        us, records = us_a_post(name, post)
        results.append(Result(f"decode_{name}", us / records, "µs a record"))
    report.report(results, args.json)


if __name__ == "__main__":
    main()
