"""Runs one SQL query in a process of its own: starts sandbox_process.py, writes its input, reads its answer, ends it.

The process is started by `subprocess`, which calls vfork and exec. uvloop calls fork, and runs Python in the child
before exec: CPython 3.11 can deadlock there on a lock that another thread held at the fork, and the event loop waits
for the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import IO, NamedTuple, cast

import msgspec

from api.sql.sandbox_process import COSTLY, FAILED, Outcome
from telemetry.config.settings import PROJECT

MAX_LINE_BYTES = 2**20
ENDED = "the question needs more memory or processor time than one may have"
COMMAND = (sys.executable, "-m", "api.sql.sandbox_process")


class Answer(NamedTuple):
    """What the process says became of the query, and the bytes of its rows."""

    outcome: Outcome
    data: bytes


class SqlProcesses:
    """Runs at most `concurrent` processes; each keeps a thread for as long as it runs."""

    def __init__(self, concurrent: int) -> None:
        self._threads = ThreadPoolExecutor(concurrent, thread_name_prefix="sql")

    async def answer(self, given: bytes, max_bytes: int) -> Answer:
        """Give a new process its input. The process is killed if the caller is cancelled.

        An answer of more than `max_bytes` is FAILED.
        """
        process = _start()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, _exchange, process, given, max_bytes)
        finally:
            process.kill()


def _start() -> subprocess.Popen[bytes]:
    pipe, env = subprocess.PIPE, {"MALLOC_ARENA_MAX": "2"}
    return subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, cwd=PROJECT, env=env)


def _exchange(process: subprocess.Popen[bytes], given: bytes, max_bytes: int) -> Answer:
    """Write the input, read the answer, end and reap the process."""
    with process:
        try:
            _write(cast("IO[bytes]", process.stdin), given)
            return _read(process, cast("IO[bytes]", process.stdout), max_bytes)
        finally:
            process.kill()


def _write(stdin: IO[bytes], given: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # a process that ended early is recognized by its output
        stdin.write(given)
    with contextlib.suppress(BrokenPipeError):
        stdin.close()


def _read(process: subprocess.Popen[bytes], stdout: IO[bytes], max_bytes: int) -> Answer:
    line = stdout.readline(MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        was_killed = process.wait() < 0
        return Answer(Outcome(COSTLY, ENDED) if was_killed else Outcome(FAILED), b"")
    outcome = msgspec.json.decode(line, type=Outcome)
    data = stdout.read(outcome.bytes) if outcome.bytes <= max_bytes else b""
    return Answer(outcome if len(data) == outcome.bytes else Outcome(FAILED), data)
