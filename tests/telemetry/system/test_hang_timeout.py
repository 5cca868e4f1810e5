"""A program whose event loop hangs ends by itself; one whose loop runs is left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from telemetry.config.settings import PROJECT

PROGRAM = """
import asyncio, ctypes, time
from telemetry.system.hang_timeout import hang_timeout

async def main():
    with hang_timeout(0.6):
        await asyncio.sleep(1.5)
        print("ran", flush=True)
        {then}
    time.sleep(1)
    print("ended", flush=True)

asyncio.run(main())
"""
LOCKED = "ctypes.PyDLL(None).sleep(60)"
"""Sleeps with the interpreter locked: no other thread of Python runs."""


def run(then: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(then=then)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("hang", ["time.sleep(60)", LOCKED])
def test_a_loop_that_hangs_ends_the_process_and_the_log_shows_where(hang: str) -> None:
    done = run(hang)
    assert (done.returncode, done.stdout) == (1, "ran\n")
    assert "Timeout" in done.stderr
    assert "in main" in done.stderr


def test_a_loop_that_runs_or_has_ended_is_left_alone() -> None:
    done = run("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\nended\n", "")
