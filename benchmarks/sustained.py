"""A load that lasts: 100,000 records a second for five minutes, and whether what waits to be saved grows meanwhile.

    python -m benchmarks.sustained [--quick] [--json FILE]

msgpack frames of 1,000 records, 10 consecutive ones of each device, over 4 connections, in an open loop. The rate is
that at which records came into the archive: what was acknowledged, less what the tail grew by.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import answers, messages, report
from benchmarks.boxes import box, shards
from benchmarks.cpu import Meter
from benchmarks.ingest import CONNECTIONS, FRAME_WINDOW, warm_up
from benchmarks.memory import sample
from benchmarks.report import Result
from benchmarks.sending import Connection, Message, send
from tests.box import Box

PER_S = 100_000
SENT_PER_S = 102_000
"""An open loop at the rate that is aimed at could never find more than that."""

SAMPLE_S = 1.0
INTERVAL_MS = 48_000
"""Of a vehicle that drives; with those of parked ones about a million records a day."""


class Size(NamedTuple):
    """How long, at which rate, and how many records are made, each of which comes again on another day."""

    seconds: float = 300.0
    rate: float = SENT_PER_S
    records: int = 900_000


QUICK = Size(20.0, SENT_PER_S, 200_000)


class Tail(threading.Thread):
    """Looks at what waits to be saved, once a second until told to stop."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.unsaved: list[int] = []
        self._box = box

    def run(self) -> None:
        """Look and look."""
        with shards(self._box) as [shard]:
            while not self.stopped.wait(SAMPLE_S):
                self.unsaved.append(shard.unsaved())

    @property
    def growth_per_s(self) -> float:
        """Records a second by which it grew: between the means of the second and the last quarter of the time."""
        quarter = max(len(self.unsaved) // 4, 1)
        early, late = self.unsaved[quarter : 2 * quarter] or [0], self.unsaved[-quarter:] or [0]
        return (statistics.mean(late) - statistics.mean(early)) / (2 * quarter * SAMPLE_S)


def frames(bodies: list[bytes], number: int, name: str) -> Iterator[Message]:
    """What one of the connections sends, without end."""
    day, batch = 0, 0
    while True:
        for body in bodies[number::CONNECTIONS]:
            batch += 1
            yield messages.frame(name, batch, messages.on_day(body, day))
        day += 1


def measure(box: Box, size: Size) -> Iterator[Result]:
    """Send, and look meanwhile."""
    bodies = messages.msgpack_bodies(messages.batches(size.records, interval_ms=INTERVAL_MS))
    address = "127.0.0.1", box.tcp_port
    name = f"sustained-{time.time_ns()}"
    connections = [
        Connection(address, frames(bodies, n, f"{name}-{n}"), answers.Frames(), FRAME_WINDOW)
        for n in range(CONNECTIONS)
    ]
    tail, meter = Tail(box), Meter(box)
    tail.start()
    try:
        load = send(connections, size.rate, size.seconds)
        cost = meter.cost(load.records)
    finally:
        tail.stopped.set()
        tail.join()
    memory_mb = sum(sample(box).values())
    yield Result("sustained", load.per_s - max(tail.growth_per_s, 0), "records/s", PER_S, is_floor=True)
    yield Result("sustained_acknowledged", load.per_s, "records/s")
    yield Result("sustained_tail_growth", tail.growth_per_s, "records/s")
    yield Result("sustained_tail_most", max(tail.unsaved, default=0), "records")
    yield Result("sustained_ack_p50", load.ms(0.5), "ms")
    yield Result("sustained_ack_p99", load.ms(0.99), "ms")
    yield Result("sustained_cpu", cost.total, "µs a record")
    yield from cost.results("sustained")
    yield Result("sustained_memory", memory_mb, "MB PSS")


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    with box() as found:
        warm_up(found)
        yield from measure(found, QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
