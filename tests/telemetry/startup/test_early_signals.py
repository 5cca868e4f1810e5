"""A signal in a program's first second, while it still loads its libraries."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telemetry.config.settings import PROJECT

PROGRAMS = [line.split(" -m ")[1] for line in (PROJECT / "Procfile").read_text().splitlines() if " -m " in line]
START_S = 20.0


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_ends_at_once_and_with_nothing_wrong(program: str) -> None:
    process = subprocess.Popen([sys.executable, "-m", program], cwd=PROJECT, stderr=subprocess.PIPE, text=True)
    try:
        end_s = time.monotonic() + START_S
        while not catches(process.pid, signal.SIGTERM) and time.monotonic() < end_s:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=START_S)
    finally:
        process.kill()
    assert (process.returncode, said) == (0, "")
