"""Processes that answer SQL: started without Python in a forked child, killed with their request, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time

import psutil
import pytest
import uvloop

from api.sql.sandbox import SqlProcesses
from api.sql.sandbox_process import FAILED, LENGTH_BYTES
from telemetry.config.settings import PROJECT

MAX_BYTES = 2**20
NO_QUESTION = (1).to_bytes(LENGTH_BYTES, "big") + b"\xc1"
"""An input that is no question: the process ends without an answer."""

PYTHON_IN_A_FORK = """
import os, uvloop
from api.sql.sandbox import SqlProcesses
os.register_at_fork(after_in_child=lambda: os.write(1, b"Python ran in a forked child\\n"))
print(uvloop.run(SqlProcesses(1).answer(b"", 1)).outcome.wrong)
"""


def children() -> list[psutil.Process]:
    """This process's own that answer SQL."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "api.sql.sandbox_process" in child.cmdline():
                found.append(child)
    return found


def test_no_python_runs_between_fork_and_exec() -> None:
    """Another thread may have held any of CPython's locks at the fork: a child that wanted one would never exec."""
    command = [sys.executable, "-c", PYTHON_IN_A_FORK]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{FAILED}\n"


def test_a_process_that_ends_without_an_answer_has_failed_and_is_reaped() -> None:
    answer = uvloop.run(SqlProcesses(1).answer(NO_QUESTION, MAX_BYTES))
    assert (answer.outcome.wrong, answer.data) == (FAILED, b"")
    assert not children()


@pytest.mark.parametrize("size", [0, 2**22])
def test_a_caller_that_is_cancelled_ends_its_process_however_much_input_is_left(size: int) -> None:
    async def cancelled() -> None:
        given = (2**31).to_bytes(LENGTH_BYTES, "big") + bytes(size)  # the process waits for more
        task = asyncio.ensure_future(SqlProcesses(1).answer(given, MAX_BYTES))
        await asyncio.sleep(0)  # it starts its process at once
        assert children()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    uvloop.run(cancelled())
    stop_s = time.monotonic() + 10
    while children():
        assert time.monotonic() < stop_s
        time.sleep(0.01)
