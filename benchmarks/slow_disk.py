"""An SD card: each fsync of Redis takes 20 ms longer. What that does to acknowledgements, and what a record writes.

    python -m benchmarks.slow_disk [--quick] [--json FILE]

`strace` delays the calls of the box's Redis; without it nothing is measured. The rate is that of frames of 1,000
records over 4 connections, 16 of each unanswered; the time of an acknowledgement that of one frame after the other over
one connection. Bytes written are those of all programs until the records are saved and merged.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import answers, messages, report
from benchmarks.boxes import SETTINGS, wait_merged, wait_saved
from benchmarks.cpu import Cost, Meter
from benchmarks.ingest import FRAMES, Source, middle, warm_up
from benchmarks.messages import A_MESSAGE
from benchmarks.report import Finding, Missing, Result
from benchmarks.sending import Connection, Load, send
from cli.redis_server.command import find
from telemetry.config.loader import load
from tests.box import PROJECT, Box

FSYNC_US = 20_000
RATIO = 0.8
WRAPPER = """\
#!/bin/sh
exec {strace} -D -f -q --seccomp-bpf -o /dev/null -e trace=fsync,fdatasync \\
    -e inject=fsync,fdatasync:delay_enter={delay_us} {server} "$@"
"""


class Size(NamedTuple):
    """Records in a round, rounds, and single frames that are timed."""

    records: int = 400_000
    rounds: int = 5
    singles: int = 50


QUICK = Size(40_000, 3, 20)


class Found(NamedTuple):
    """What a box with one kind of disk came to."""

    loads: list[Load]
    cost: Cost
    bytes_a_record: float
    ack: Load


@contextmanager
def box(delay_us: int) -> Iterator[Box]:
    """A box whose Redis has this disk."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = Box(Path(folder), (), PROJECT, **SETTINGS)
        if delay_us:
            programs = Path(folder) / "bin"
            programs.mkdir()
            server = find(load(environ=found.environ)).path
            slow = programs / "redis-server"
            slow.write_text(WRAPPER.format(strace=shutil.which("strace"), delay_us=delay_us, server=server))
            slow.chmod(0o755)
            found.environ["PATH"] = f"{programs}:{found.environ['PATH']}"
        with found:
            yield found


def written_bytes(box: Box) -> int:
    """What the box's programs have sent to the disk since they started."""
    top = psutil.Process(box.pid)
    return sum(process.io_counters().write_bytes for process in top.children(recursive=True))


def on_disk(delay_us: int, some: list[messages.Batch], size: Size) -> Found:
    """All rounds with one kind of disk."""
    with box(delay_us) as found:
        warm_up(found)
        source = Source(found, FRAMES, some, "disk")
        before, loads, costs = written_bytes(found), [], []
        for number in range(size.rounds):
            connections, meter = source.connections(number), Meter(found)
            loads.append(send(connections))
            wait_saved(found)
            wait_merged(found)
            costs.append(meter.cost(loads[-1].records))
        written = written_bytes(found) - before
        singles = [messages.frame("single", n + 1, body) for n, body in enumerate(source.bodies[: size.singles])]
        ack = send([Connection(("127.0.0.1", found.tcp_port), singles, answers.Frames())])
    return Found(loads, middle(costs), written / sum(one.records for one in loads), ack)


def measure(size: Size, delay_us: int = FSYNC_US) -> Iterator[Finding]:
    """The disk as it is, then the slow one."""
    if shutil.which("strace") is None:
        yield Missing("slow_disk", "no strace is installed: scripts/install-strace")
        return
    some = messages.batches(max(size.records, size.singles * A_MESSAGE))
    per_s = []
    for name, delay in (("usual_disk", 0), ("slow_disk", delay_us)):
        found = on_disk(delay, some, size)
        per_s.append(statistics.median(one.per_s for one in found.loads))
        yield Result(f"{name}_rate", per_s[-1], "records/s")
        yield Result(f"{name}_ack_p50", found.ack.ms(0.5), "ms a frame")
        yield Result(f"{name}_ack_p99", found.ack.ms(0.99), "ms a frame")
        yield Result(f"{name}_written", found.bytes_a_record, "bytes a record")
        yield from found.cost.results(name)
    yield Result("slow_disk", per_s[1] / per_s[0], "of the usual rate", RATIO, is_floor=True)


def run(quick: bool) -> Iterator[Finding]:
    """In boxes of its own."""
    return measure(QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
