"""One record a request, of 64 keep-alive connections over HTTP, and one a line, of 1,000 connections over TCP.

    python -m benchmarks.single [--quick] [--json FILE]

Each connection sends its next record when the one before is acknowledged. The sender is one process with a loop over
plain sockets and bytes made beforehand; what it takes is named beside what the box's programs take.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

from benchmarks import answers, messages, report
from benchmarks.boxes import box, wait_saved
from benchmarks.cpu import Cost, Meter
from benchmarks.ingest import middle
from benchmarks.report import Result
from benchmarks.sending import Answers, Connection, Load, Message, send
from telemetry.system.process import allow_open_files
from tests.box import Box

HTTP_CONNECTIONS, TCP_CONNECTIONS = 64, 1_000
HTTP_PER_S, TCP_PER_S, HTTP_P99_MS = 15_000, 40_000, 25.0
RECORDS = 100_000


class Size(NamedTuple):
    """Seconds of a round, rounds, and different records."""

    seconds: float = 5.0
    rounds: int = 5
    records: int = RECORDS


QUICK = Size(1.5, 3, 20_000)


class Way(NamedTuple):
    """How one record is sent."""

    name: str
    port: Callable[[Box], int]
    message: Callable[[bytes], Message]
    answers: Callable[[], Answers]
    connections: int


HTTP = Way(
    "single_http", lambda box: box.http_port, lambda line: messages.post(line, 1), answers.Http, HTTP_CONNECTIONS
)
TCP = Way("single_tcp", lambda box: box.tcp_port, lambda line: Message(line + b"\n"), answers.Lines, TCP_CONNECTIONS)


def carry(box: Box, way: Way, some: Sequence[Message], seconds: float) -> tuple[Load, Cost]:
    """One round; the cost is that of taking the records and of saving them."""
    address = "127.0.0.1", way.port(box)
    connections = [
        Connection(address, cycle(some[n :: way.connections]), way.answers()) for n in range(way.connections)
    ]
    meter = Meter(box)
    load = send(connections, seconds=seconds)
    wait_saved(box)
    return load, meter.cost(load.records)


def rows(box: Box, way: Way, size: Size, per_s: float, p99_ms: float | None) -> Iterator[Result]:
    """The lines of one way."""
    some = [way.message(line) for batch in messages.batches(size.records, 1) for line in batch.lines]
    carry(box, way, some, size.seconds / 5)
    found = [carry(box, way, some, size.seconds) for _ in range(size.rounds)]
    loads, cost = [load for load, _ in found], middle([cost for _, cost in found])
    yield Result(way.name, statistics.median(load.per_s for load in loads), "records/s", per_s, is_floor=True)
    yield Result(f"{way.name}_p50", statistics.median(load.ms(0.5) for load in loads), "ms")
    yield Result(f"{way.name}_p99", statistics.median(load.ms(0.99) for load in loads), "ms", p99_ms)
    yield Result(f"{way.name}_cpu", cost.total, "µs a record")
    yield from cost.results(way.name)
    sender_us = statistics.median(1e6 * load.sender_cpu_s / load.records for load in loads)
    yield Result(f"{way.name}_sender", sender_us, "µs a record")


def measure(box: Box, size: Size) -> Iterator[Result]:
    """Over HTTP, then over TCP."""
    yield from rows(box, HTTP, size, HTTP_PER_S, HTTP_P99_MS)
    yield from rows(box, TCP, size, TCP_PER_S, None)


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    allow_open_files(TCP_CONNECTIONS + 100)
    with box() as found:
        yield from measure(found, QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
