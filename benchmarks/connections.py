"""What idle TCP connections cost the collector, and what they cost others: answers' times before and with them.

    python -m benchmarks.connections [--connections 10000] [--each json] [--json FILE]

With `--each` a connection sends one message of that protocol first, so that it has a decoder.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from pathlib import Path

import msgpack
import psutil

from benchmarks import report
from benchmarks.memory import pss_mb
from benchmarks.report import Result
from telemetry.system.process import allow_open_files
from tests.box import Box

AIM_MB = 100
ANSWERS = 2_000
SETTLE_S = 3.0
RECORD = {"device_id": "idle", "lat": 53.4, "lon": -2.9}
CONTENT: bytes = msgpack.packb([1, "idle", 1, [RECORD]])
FIRST = {
    "nothing": b"",
    "json": json.dumps(RECORD).encode() + b"\n",
    "msgpack": msgpack.packb(RECORD),
    "frames": len(CONTENT).to_bytes(4, "big") + CONTENT,
}


def collector(box: Box) -> psutil.Process:
    """The box's collector."""
    [found] = [one for one in psutil.Process(box.pid).children(recursive=True) if "collector" in one.cmdline()]
    return found


def answer_ms(port: int) -> list[float]:
    """How long each of some answers to one sender takes, sorted."""
    taken = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ANSWERS):
            start_s = time.perf_counter()
            connection.sendall(FIRST["json"])
            connection.recv(1_000)
            taken.append(1_000 * (time.perf_counter() - start_s))
    return sorted(taken)


def connected(port: int, count: int, first: bytes) -> list[socket.socket]:
    """Connections that stay."""
    found = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port), 10)
        if first:
            one.sendall(first)
            one.recv(1_000)
        found.append(one)
    return found


def main() -> None:
    """Run and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--each", choices=FIRST, default="nothing", help="what each sends first (default: nothing)")
    args = parser.parse_args()
    allow_open_files(args.connections + 100)
    with (
        tempfile.TemporaryDirectory() as folder,
        Box(Path(folder), collector__max_connections_per_address="0") as box,
    ):
        before_ms, process = answer_ms(box.tcp_port), collector(box)
        before_mb, cpu_s = pss_mb(process), sum(process.cpu_times()[:2])
        found = connected(box.tcp_port, args.connections, FIRST[args.each])
        time.sleep(SETTLE_S)
        idle_s, start_s = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(SETTLE_S)
        cpu_percent = 100 * (sum(process.cpu_times()[:2]) - idle_s) / (time.monotonic() - start_s)
        cost_mb, with_ms = pss_mb(process) - before_mb, answer_ms(box.tcp_port)
        connect_s = idle_s - cpu_s
        for one in found:
            one.close()
    results = [Result("connections", cost_mb, "MB PSS", AIM_MB), Result("connect", connect_s, "s of CPU")]
    results.append(Result("idle", cpu_percent, "% of a core"))
    for name, taken in (("before", before_ms), ("with_them", with_ms)):
        results.append(Result(f"answer_{name}_p50", taken[len(taken) // 2], "ms"))
        results.append(Result(f"answer_{name}_p99", taken[len(taken) * 99 // 100], "ms"))
    report.report(results, args.json)


if __name__ == "__main__":
    main()
