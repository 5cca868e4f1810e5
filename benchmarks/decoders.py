"""From bytes to records: µs a record of 8 fields, in messages of 1,000, for each protocol of the TCP port.

python -m benchmarks.decoders [--json FILE]
"""

from __future__ import annotations

import json
import time

import msgpack

from benchmarks import report
from benchmarks.report import Result
from collector.protocols import PROTOCOLS, MessageLimits
from collector.protocols.contract import Received
from telemetry.fields import Arrival

NOW_US = 1_795_500_000_000_000
RECORDS = 1_000
ROUNDS = 50
TURN_BYTES = 16 * 2**10
LIMITS = MessageLimits(2**20, 100_000)


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


def us_a_record(name: str, data: bytes) -> float:
    """The best of some rounds, each received in turns as from a socket."""
    best = float("inf")
    for _ in range(ROUNDS):
        decoder, found = PROTOCOLS["any"](LIMITS), []
        start_s = time.perf_counter()
        for at in range(0, len(data), TURN_BYTES):
            found += decoder.feed(data[at : at + TURN_BYTES], Arrival(NOW_US))
        best = min(best, time.perf_counter() - start_s)
        assert isinstance(found[0], Received), name
        assert len(found[0].records) == RECORDS
    return 1e6 * best / RECORDS


def main() -> None:
    """Run and print."""
    args = report.parser(__doc__).parse_args()
    results = []
    for name, data in messages().items():
        results.append(Result(f"decode_{name}", us_a_record(name, data), "µs a record"))
        results.append(Result(f"size_{name}", len(data) / RECORDS, "bytes a record"))
    report.report(results, args.json)


if __name__ == "__main__":
    main()
