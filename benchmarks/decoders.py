"""From bytes to records: µs a record of 8 fields, in messages of 1,000, for each protocol of the TCP port; and for each
protocol of trackers, whose frames hold one record as a rule.

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
from collector.protocols import PROTOCOLS, MessageLimits
from collector.protocols.contract import Decoder, Received
from collector.protocols.framed import Framed, Options
from collector.protocols.gl200 import Gl200
from collector.protocols.gps103 import Gps103
from collector.protocols.h02 import H02
from collector.protocols.nmea import Nmea
from collector.protocols.tk103 import Tk103
from telemetry.fields import Arrival

NOW_US = 1_795_500_000_000_000
RECORDS = 1_000
ROUNDS = 50
TURN_BYTES = 16 * 2**10
LIMITS = MessageLimits(2**20, 100_000)


class Tracker(NamedTuple):
    """A decoder, a frame with `{0:04}` where minute and second belong, and how many records it holds."""

    make: Callable[[Options], Framed]
    frame: str
    records: int = 1


TRACKERS = {
    "h02": Tracker(
        H02, "*HQ,4106012736,V1,12{0:04},A,4100.4920,N,02858.7040,E,019.44,270,010326,FFFFFBFF,286,01,4660,43981#"
    ),
    "gps103": Tracker(
        Gps103,
        "imei:359710041641581,tracker,2603011159,,F,06{0:04}.000,A,2456.2591,N,06708.8335,E,7.53,76.10,,1,0,0.03%,,;",
    ),
    "tk103": Tracker(Tk103, "(012345678901BR00260301A3439.9629S05826.3504W000.117{0:04}323.8700000000L000450AC)"),
    "gl200": Tracker(
        Gl200,
        "+RESP:GTFRI,1A0900,860599000306845,G3-313,0,0,1,1,2.1,0,426.7,8.611466,47.681639,2026030113{0:04},0228,0001,"
        "077F,4812,25.2,83,20260301134702,0654$",
    ),
    "nmea": Tracker(
        Nmea,
        "359853000144328,$GPRMC,12{0:04},A,6000.5332,N,03020.5192,E,1.17,60.26,010326,,\n"
        "$GPGGA,12{0:04},6000.5332,N,03020.5192,E,1,08,1.0,12.5,M,,,,\n",
    ),
}
"""Name → what a device of this protocol sends most."""


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
    times = [100 * (n // 60 % 60) + n % 60 for n in range(RECORDS // tracker.records)]
    return b"".join(tracker.frame.format(time).encode() for time in times)


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
        us = us_a_record(name, lambda make=tracker.make: make(Options()), frames(tracker))  # type: ignore[misc]
        results.append(Result(f"decode_{name}", us, "µs a record"))
        results.append(Result(f"frames_{name}", 1e6 / us / tracker.records, "frames/s"))
    report.report(results, args.json)


if __name__ == "__main__":
    main()
