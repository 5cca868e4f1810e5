"""Memory of all processes at a million records a day: 12 records/s for a minute, saved all the while.

    python -m benchmarks.memory [--seconds 60] [--json FILE]

PSS counts what processes share once, by parts.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import report
from benchmarks.report import Result
from tests.box import Box

RECORDS_PER_S = 12
SAMPLE_S = 5.0
AIM_MB = 350


def pss_mb(process: psutil.Process) -> float:
    """A process's proportional share of memory."""
    return float(process.memory_full_info().pss) / 1e6


def sample(box: Box) -> dict[str, float]:
    """Program → MB, of everything that `whimbrel up` runs and itself."""
    found: dict[str, float] = {}
    top = psutil.Process(box.pid)
    for process in [top, *top.children(recursive=True)]:
        words = process.cmdline()
        name = words[words.index("-m") + 1] if "-m" in words else os.path.basename(words[0])
        name = "up" if process == top else name.partition(":")[0]
        found[name] = found.get(name, 0.0) + pss_mb(process)
    return found


def measure(box: Box, seconds: float) -> dict[str, float]:
    """The median of each program's samples while records arrive."""
    samples: list[dict[str, float]] = []
    start_s = time.monotonic()
    sent = 0
    while (passed_s := time.monotonic() - start_s) < seconds:
        if passed_s * RECORDS_PER_S > sent:
            record = {"device_id": f"van-{sent % 100}", "lat": 53.4, "lon": -2.9, "speed": 50, "fuel": 12, "sat": 7}
            box.http.post("/v1/records", json=record).raise_for_status()
            sent += 1
        else:
            time.sleep(0.01)
        if passed_s > SAMPLE_S * (len(samples) + 1):
            samples.append(sample(box))
    return {name: statistics.median(one.get(name, 0.0) for one in samples) for name in samples[-1]}


def main() -> None:
    """Run and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long records are sent")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder)) as box:
        found = measure(box, args.seconds)
    programs = sorted(found.items(), key=lambda item: -item[1])
    results = [Result(f"memory_{name}", value, "MB PSS") for name, value in programs]
    report.report([*results, Result("memory", sum(found.values()), "MB PSS", AIM_MB)], args.json)


if __name__ == "__main__":
    main()
