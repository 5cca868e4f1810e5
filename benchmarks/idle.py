"""Memory of all programs at 12 records a second, a million a day.

    python -m benchmarks.idle [--quick] [--json FILE]

PSS, which counts once what processes share; the same as `benchmarks.memory`, by parts, and their CPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import memory, report
from benchmarks.cpu import Meter
from benchmarks.report import Result
from tests.box import Box

TARGET_MB = 350.0
SECONDS, QUICK_SECONDS = 60.0, 11.0


def measure(box: Box, seconds: float) -> Iterator[Result]:
    """A box as it comes."""
    meter = Meter(box)
    found = memory.measure(box, seconds)
    cores = meter.cost(1).total / 1e6 / meter.passed_s
    yield Result("idle_memory", sum(found.values()), "MB PSS", TARGET_MB)
    for name, mb in sorted(found.items(), key=lambda item: -item[1]):
        yield Result(f"idle_memory_{name}", mb, "MB PSS")
    yield Result("idle_cpu", 100 * cores, "% of a core")


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own, with the settings as they come."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Box(Path(folder)) as found:
        yield from measure(found, QUICK_SECONDS if quick else SECONDS)


if __name__ == "__main__":
    report.run_alone(__doc__, run)
