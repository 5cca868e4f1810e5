"""Latest of one device over one keep-alive connection, beside what bare Redis takes for the same value.

python -m benchmarks.latest [--requests 5000] [--json FILE]
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import report
from benchmarks.report import Result
from telemetry.config import load
from telemetry.redis_client import connect
from tests.box import Box

ROUNDS = 5
AIM_MS = 0.5


def times_ms(ask: Callable[[], object], count: int) -> list[float]:
    """How long each of `count` calls took."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        ask()
        found.append((time.perf_counter() - start) * 1_000)
    return found


def measure(box: Box, requests: int) -> dict[str, float]:
    """Medians over the rounds of each round's p50 and p99, ms; the API and bare Redis take turns."""
    box.http.post("/v1/records", json={"device_id": "van-7", "lat": 53.4, "lon": -2.9, "speed": 50, "fuel": 12})
    connection = http.client.HTTPConnection("127.0.0.1", box.api_port)

    def over_http() -> None:
        connection.request("GET", "/v1/devices/van-7/latest")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the API answered {answer.status}")

    client = connect(load(environ=box.environ))
    over_http()
    rounds: dict[str, list[float]] = {"p50": [], "p99": [], "redis": []}
    for _ in range(ROUNDS):
        taken = sorted(times_ms(over_http, requests))
        rounds["p50"].append(taken[len(taken) // 2])
        rounds["p99"].append(taken[len(taken) * 99 // 100])
        bare = times_ms(lambda: client.hget("whimbrel:{0}:latest", "van-7"), requests)
        rounds["redis"].append(statistics.median(bare))
    connection.close()
    client.close()
    return {name: statistics.median(values) for name, values in rounds.items()}


def main() -> None:
    """Run and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--requests", type=int, default=5_000, help="requests in each of 5 rounds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder)) as box:
        found = measure(box, args.requests)
    results = [
        Result("latest_p50", found["p50"], "ms", AIM_MS),
        Result("latest_p99", found["p99"], "ms"),
        Result("bare_redis_p50", found["redis"], "ms"),
        Result("latest_to_redis", found["p50"] / found["redis"], "times"),
    ]
    report.report(results, args.json)


if __name__ == "__main__":
    main()
