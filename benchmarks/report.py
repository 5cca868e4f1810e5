"""How every benchmark says what it found: a line a figure, and with `--json FILE` the same for programs.

The file is {"machine": {"processor", "cores", "memory_bytes", "system", "python"}, "results": [{"id", "value",
"unit", and where there is an aim "target", "holds"}]}; of those that have a short form also "quick", and "missing":
[{"id", "why"}] where something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil


class Result(NamedTuple):
    """One figure. `target` is what it may be at most, or at least if `is_floor`."""

    id: str
    value: float
    unit: str
    target: float | None = None
    is_floor: bool = False

    @property
    def holds(self) -> bool:
        """Whether the aim is met; true without one."""
        if self.target is None:
            return True
        return self.value >= self.target if self.is_floor else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        """Its object in the file."""
        found: dict[str, Any] = {"id": self.id, "value": self.value, "unit": self.unit}
        return found if self.target is None else found | {"target": self.target, "holds": self.holds}

    def __str__(self) -> str:
        """Its line."""
        line = f"{self.id:<34} {self.value:14,.3f} {self.unit}"
        if self.target is None:
            return line
        bound = f"at {'least' if self.is_floor else 'most'} {self.target:g}"
        return f"{line}, {bound}: {'holds' if self.holds else 'MISSED'}"


class Missing(NamedTuple):
    """A figure that could not be measured."""

    id: str
    why: str

    def __str__(self) -> str:
        """Its line."""
        return f"not measured: {self.id}: {self.why}"


Finding = Result | Missing
Measure = Callable[[bool], Iterable[Finding]]
"""What one part measures, shortly if it is told True."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A benchmark's arguments, to which it adds its own; `doc` is its docstring."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    return found


def report(results: Sequence[Result], file: Path | None) -> None:
    """Print all, and write them to `file` if one is named."""
    for result in results:
        print(result)
    write(results, file)


def write(findings: Sequence[Finding], file: Path | None, **more: object) -> None:
    """Write the figures to `file` if one is named, with `more` beside them."""
    if file is None:
        return
    found: dict[str, object] = {"machine": machine(), **more}
    found["results"] = [finding.as_json() for finding in findings if isinstance(finding, Result)]
    if missing := [finding._asdict() for finding in findings if isinstance(finding, Missing)]:
        found["missing"] = missing
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def run_alone(doc: str | None, measure: Measure) -> None:
    """One part as a program of its own: run, and print each figure as soon as it is known."""
    found = parser(doc)
    found.add_argument("--quick", action="store_true", help="fewer and smaller rounds")
    args = found.parse_args()
    clean_up_when_ended()
    write(told(measure(args.quick)), args.json, quick=args.quick)


def clean_up_when_ended() -> None:
    """Have SIGTERM leave no box and no files, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def told(findings: Iterable[Finding]) -> list[Finding]:
    """All findings, each printed when it comes."""
    found = []
    for finding in findings:
        print(finding, flush=True)
        found.append(finding)
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
