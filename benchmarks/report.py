"""How every benchmark says what it found: a line a figure, and with `--json FILE` the same for programs.

The file is {"machine": {"processor", "cores", "memory_bytes", "system", "python"}, "results": [{"id", "value",
"unit", and where there is an aim "target", "holds"}]}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
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


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A benchmark's arguments, to which it adds its own; `doc` is its docstring."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    return found


def report(results: Sequence[Result], file: Path | None) -> None:
    """Print all, and write them to `file` if one is named."""
    for result in results:
        print(result)
    if file is not None:
        found = {"machine": machine(), "results": [result.as_json() for result in results]}
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")


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
