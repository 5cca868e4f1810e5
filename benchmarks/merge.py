"""Merging a day of 10 million records that came in 50 files, and what a record takes in the archive afterwards.

    python -m benchmarks.merge [--quick] [--json FILE]

`whimbrel compact --all` in a process of its own, on a copy of the same archive each time. `bytes` is of the first
million records of `whimbrel simulate --seed 1` that came in batches of 1,000, `bytes_live` of the same if each came by
itself, up to 2 s after its time. The day of 10 million is one of a million with nine more on the way to each record.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from benchmarks import archives, report
from benchmarks.cpu import peak_mb
from benchmarks.messages import DEVICES
from benchmarks.report import Result
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from tests.box import PROJECT

BYTES, SECONDS, MEMORY_MB = 16.0, 8.0, 1_000.0
LOOK_S = 0.02


class Size(NamedTuple):
    """Records of a device, how many times as many there are in the dense day, files of either, and rounds."""

    a_device: int = archives.A_DAY
    times: int = 10
    files: int = 5
    dense_files: int = 50
    rounds: int = 5


QUICK = Size(100, 5, 3, 10, 3)


class Merged(NamedTuple):
    """One merge: seconds, CPU seconds, most memory, and the archive's bytes and records."""

    seconds: float
    cpu_s: float
    memory_mb: float
    bytes: int
    records: int

    @property
    def bytes_a_record(self) -> float:
        return self.bytes / self.records


def merged(data: Path) -> Merged:
    """Merge a box's archive."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL")}
    command = [sys.executable, "-m", "cli.main", "compact", "--all", "--json"]
    start_s = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environ | {"WHIMBREL__DATA__DIR": str(data)}, stdout=subprocess.DEVNULL
    )
    memory_mb, pid = 0.0, 0
    try:
        while not pid:
            memory_mb = max(memory_mb, peak_mb(process.pid))  # the peak in `used` counts ours before it became another
            time.sleep(LOOK_S)
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
    except BaseException:
        process.kill()
        raise
    seconds = time.perf_counter() - start_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"merging ended with status {process.returncode}")
    size, records = held(data)
    return Merged(seconds, used.ru_utime + used.ru_stime, memory_mb, size, records)


def held(data: Path) -> tuple[int, int]:
    """The archive's bytes and records."""
    archive = Archive(data / "archive")
    days = archive.days(archive.open())
    return sum(day.size_bytes for day in days), sum(day.records for day in days)


def of(data: Path, tables: Iterable[pa.Table], rounds: int) -> list[Merged]:
    """Save these tables, and merge copies of the archive."""
    archives.add(Archive(data / "archive"), tables)
    found = []
    for number in range(rounds):
        copy = data.with_name(f"{data.name}-{number}")
        shutil.copytree(data, copy, copy_function=os.link)  # no file is ever written to again
        found.append(merged(copy))
        shutil.rmtree(copy)
    return found


def measure(folder: Path, size: Size) -> Iterator[Result]:
    """The first records, then the dense day."""
    first = archives.first_records(DEVICES * size.a_device)
    rows = -(-first.num_rows // size.files)
    for name, table, target in (("bytes", archives.in_batches(first), BYTES), ("bytes_live", first, None)):
        found = of(folder / name, (table.slice(at, rows) for at in range(0, table.num_rows, rows)), 1)
        saved_bytes, records = held(folder / name)
        yield Result(name, found[0].bytes_a_record, "bytes a record", target)
        yield Result(f"{name}_as_saved", saved_bytes / records, "bytes a record")
    day = archives.one_day(DEVICES, size.a_device)
    with open_duckdb(folder / "tmp") as connection:
        found = of(folder / "dense", archives.denser(connection, day, size.times, size.dense_files), size.rounds)
    yield Result("compact", statistics.median(one.seconds for one in found), "s", SECONDS)
    yield Result("compact_memory", max(one.memory_mb for one in found), "MB", MEMORY_MB)
    yield Result("compact_cpu", statistics.median(1e6 * one.cpu_s / one.records for one in found), "µs a record")
    yield Result("compact_records", found[0].records, "records")
    yield Result("compact_bytes", found[0].bytes_a_record, "bytes a record")


def run(quick: bool) -> Iterator[Result]:
    """In a folder of its own; no box runs."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield from measure(Path(folder), QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
