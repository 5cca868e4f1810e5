"""CPU time by program: user and system time of all processes of a box, their children that ended among them."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.report import Result
from tests.box import Box

PROGRAMS = ("collector", "redis", "worker", "compactor", "api", "query", "rest")
"""As in the Procfile, the scheduler by its package; merging is the worker's. The rest: `whimbrel up`, supervisord."""

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
USER_AND_SYSTEM = slice(11, 15)
"""Fields of /proc/PID/stat behind the name: its own user and system time, then those of its ended children."""


def program(words: Sequence[str]) -> str:
    """Which of `PROGRAMS` a command line is."""
    if any(word.endswith(("redis-server", "valkey-server")) or "redis.sock" in word for word in words[:1]):
        return "redis"
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    name = "query" if module == "api.query" else module
    return name if name in PROGRAMS else "rest"


def used_s(box: Box) -> Counter[str]:
    """Program → seconds of CPU since its start."""
    found: Counter[str] = Counter()
    top = psutil.Process(box.pid)
    for process in [top, *top.children(recursive=True)]:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        found[program(process.cmdline())] += sum(map(int, stat[USER_AND_SYSTEM])) * TICK_S  # type: ignore[assignment]
    return found


def peak_mb(pid: int) -> float:
    """The most memory that a process had resident, MB; 0 if it is just ending."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6


class Cost(NamedTuple):
    """What records cost: µs of CPU a record, by program."""

    by_program: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.by_program.values())

    def results(self, name: str, unit: str = "µs a record") -> list[Result]:
        """A line a program."""
        return [Result(f"{name}_{one}", us, unit) for one, us in self.by_program.items()]


def median(costs: Iterable[Cost]) -> Cost:
    """The median of several measurements, program by program."""
    values = [cost.by_program for cost in costs]
    return Cost({name: statistics.median(value[name] for value in values) for name in PROGRAMS})


class Meter:
    """Measures a box from when it is made until it is read."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._before = used_s(box)
        self._start_s = time.perf_counter()

    @property
    def passed_s(self) -> float:
        """How long it has run."""
        return time.perf_counter() - self._start_s

    def cost(self, records: int) -> Cost:
        """CPU until now, over so many records."""
        now = used_s(self._box)
        return Cost({name: 1e6 * (now[name] - self._before[name]) / records for name in PROGRAMS})
