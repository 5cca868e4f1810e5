"""`whimbrel import` of a million records into a running box, as CSV, NDJSON and Parquet.

    python -m benchmarks.imports [--quick] [--json FILE]

The files are what `whimbrel simulate --seed 1` makes up, with 1,000 devices in the order of time; CSV and Parquet are
made of the NDJSON. A figure is the seconds from the command's start to its end; `_cpu` its CPU in µs a record,
`_memory` the most that it had in memory, and `_<program>` what the box's programs took meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import report
from benchmarks.boxes import box
from benchmarks.cpu import Meter, peak_mb
from benchmarks.messages import DEVICES
from benchmarks.report import Result
from telemetry.archive.schema import open_duckdb, sql_text
from tests.box import PROJECT, Box

KINDS = ("csv", "ndjson", "parquet")
SECONDS = 30.0
LOOK_S = 0.02
RECORDS, QUICK_RECORDS = 1_000_000, 20_000


def write(folder: Path, records: int) -> dict[str, Path]:
    """The files, by kind."""
    files = {kind: folder / f"records.{kind}" for kind in KINDS}
    command = [sys.executable, "-m", "cli.main", "simulate", "--seed", "1", "--devices", str(DEVICES)]
    command += ["--records", str(records), "--out", str(files["ndjson"])]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    with open_duckdb() as connection:
        source = f"(FROM read_json({sql_text(str(files['ndjson']))}))"
        for kind, form in (("csv", "FORMAT csv, HEADER true"), ("parquet", "FORMAT parquet, COMPRESSION zstd")):
            connection.execute(f"COPY {source} TO {sql_text(str(files[kind]))} ({form})")
    return files


def measure(box: Box, files: dict[str, Path], records: int) -> Iterator[Result]:
    """The figures of each kind."""
    for kind, file in files.items():
        meter = Meter(box)
        command = [sys.executable, "-m", "cli.main", "import", str(file), "--json"]
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(command, cwd=PROJECT, env=box.environ, stdout=out)
            start_s, most_mb = time.perf_counter(), 0.0
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                most_mb = max(most_mb, peak_mb(process.pid))  # what the kernel tells in the end begins with our own
                time.sleep(LOOK_S)
            seconds = time.perf_counter() - start_s
            _, status, used = ended
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            said = json.loads(out.read() or b"{}")
        if process.returncode != 0 or said["imported"] != records:
            raise RuntimeError(f"of {records} records as {kind} not all were imported: {said}")
        name = f"import_{kind}"
        yield Result(name, seconds, "s", SECONDS)
        yield Result(f"{name}_cpu", 1e6 * (used.ru_utime + used.ru_stime) / records, "µs a record")
        yield Result(f"{name}_memory", most_mb, "MB")
        yield from meter.cost(records).results(name)


def run(quick: bool) -> Iterator[Result]:
    """A million records of each kind, or fewer."""
    records = QUICK_RECORDS if quick else RECORDS
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, box() as found:
        yield from measure(found, write(Path(folder), records), records)


if __name__ == "__main__":
    report.run_alone(__doc__, run)
