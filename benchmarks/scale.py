"""What a record costs as a fleet and an archive grow: 1,000 and 100,000 devices, the first and the thirtieth day.

    python -m benchmarks.scale [--quick] [--json FILE]

CPU of all processes, from the socket to merged Parquet, of frames of 1,000 with 10 consecutive records a device.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks import messages, report
from benchmarks.boxes import box, saved, wait_merged, wait_saved
from benchmarks.cpu import Cost, Meter
from benchmarks.ingest import FRAMES, Source, carry, middle, warm_up
from benchmarks.messages import A_MESSAGE, DEVICES
from benchmarks.report import Result
from benchmarks.sending import send
from tests.box import Box

TIMES = 1.3
ENDS = 5
"""Days at either end whose median counts."""


class Size(NamedTuple):
    """Devices of a large fleet, records and rounds of either fleet; days, and records of each."""

    devices: int = 100_000
    records: int = 1_000_000
    rounds: int = 3
    days: int = 30
    day_records: int = 200_000


QUICK = Size(5_000, 50_000, 1, 6, 20_000)


def fleet(box: Box, devices: int, size: Size, first_day: int) -> Cost:
    """The middle of some rounds, after one in which the devices are new."""
    some = messages.batches(size.records, devices=devices)
    source = Source(box, FRAMES, some, f"fleet-{devices}")
    rounds = [carry(box, source, first_day + n, len(some) * A_MESSAGE) for n in range(size.rounds + 1)]
    return middle([one.cost for one in rounds[1:]])


def of_devices(box: Box, size: Size) -> Iterator[Result]:
    """A small fleet, then a large one."""
    small, large = fleet(box, DEVICES, size, 0), fleet(box, size.devices, size, size.rounds + 1)
    yield Result("scale_devices", large.total / small.total, "times", TIMES)
    yield Result("scale_devices_small", small.total, "µs a record")
    yield from small.results("scale_devices_small")
    yield Result("scale_devices_large", large.total, "µs a record")
    yield from large.results("scale_devices_large")


def day(box: Box, halves: Sequence[Source], number: int, records: int) -> float:
    """What a record of a day costs, µs of CPU.

    Each half is saved for itself, so that every day is merged: one that happened to be saved as one file would cost a
    tenth less, and which days do is chance.
    """
    sent, before, meter = [source.connections(number) for source in halves], saved(box), Meter(box)
    for connections in sent:
        send(connections)
        wait_saved(box)
    wait_merged(box)
    cost = meter.cost(records)
    if (found := saved(box) - before) != records:
        raise RuntimeError(f"of {records} records {found} are in the archive")
    return cost.total


def of_days(box: Box, size: Size) -> Iterator[Result]:
    """One day after the other."""
    some = messages.batches(size.day_records)
    middle_of = len(some) // 2
    halves = [Source(box, FRAMES, part, name) for part, name in ((some[:middle_of], "am"), (some[middle_of:], "pm"))]
    costs = [day(box, halves, n, len(some) * A_MESSAGE) for n in range(size.days)]
    ends = min(ENDS, size.days)
    first, last = (statistics.median(part) for part in (costs[:ends], costs[-ends:]))
    yield Result("scale_days", last / first, "times", TIMES)
    yield Result("scale_days_first", first, "µs a record")
    yield Result("scale_days_last", last, "µs a record")


def run(quick: bool) -> Iterator[Result]:
    """Each in a box of its own."""
    size = QUICK if quick else Size()
    for part in (of_devices, of_days):
        with box() as found:
            warm_up(found)
            yield from part(found, size)


if __name__ == "__main__":
    report.run_alone(__doc__, run)
