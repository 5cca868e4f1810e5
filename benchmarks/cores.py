"""What a second collector process gives: acknowledged records a second with two beside those with one.

    python -m benchmarks.cores [--quick] [--json FILE]

The sender stays the same: msgpack frames of 1,000 records over 16 connections, which the kernel spreads.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks import messages, report
from benchmarks.boxes import box, wait_saved
from benchmarks.cpu import Cost, Meter
from benchmarks.ingest import FRAMES, QUICK, Size, Source, middle, warm_up
from benchmarks.report import Result
from benchmarks.sending import Load, send
from tests.box import Box

CONNECTIONS = 16


def rounds(box: Box, some: list[messages.Batch], count: int) -> tuple[list[Load], list[Cost]]:
    """So many rounds with a box."""
    loads, costs = [], []
    source = Source(box, FRAMES, some, "cores", CONNECTIONS)
    for number in range(count):
        connections, meter = source.connections(number), Meter(box)
        loads.append(send(connections))
        costs.append(meter.cost(loads[-1].records))
        wait_saved(box)
    return loads, costs


def measure(size: Size) -> Iterator[Result]:
    """One process, then two."""
    some = messages.batches(size.records)
    per_s = []
    for processes, name in ((1, "one_core"), (2, "two_cores")):
        with box(collector__processes=str(processes)) as found:
            warm_up(found)
            loads, costs = rounds(found, some, size.rounds)
        per_s.append(statistics.median(load.per_s for load in loads))
        yield Result(f"{name}_rate", per_s[-1], "records/s")
        yield from middle(costs).results(name)
    yield Result("two_cores", per_s[1] / per_s[0], "times the rate of one")


def run(quick: bool) -> Iterator[Result]:
    """In boxes of its own."""
    return measure(QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
