"""Pipe streams close only their own file descriptors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pytest
import uvloop

from api.execution.pipe_stream import PipeStream
from api.execution.query_pool import Queries
from api.execution.slots import SlotLimits

RUNS = 1_000
THREADS = 8


@pytest.fixture
def queries() -> Iterator[Queries]:
    with duckdb.connect() as connection:
        yield Queries(connection, SlotLimits(2, 32, 30, 100), 30)


@contextmanager
def others() -> Iterator[list[OSError]]:
    """Threads that open and close their own files; collects their errors."""
    errors: list[OSError] = []
    is_over = threading.Event()

    interval_s = sys.getswitchinterval()

    def use_files() -> None:
        while not is_over.is_set():
            for file in os.pipe():
                try:
                    os.close(file)
                except OSError as error:
                    errors.append(error)

    threads = [threading.Thread(target=use_files) for _ in range(THREADS)]
    sys.setswitchinterval(1e-6)  # frequent switches: a thread soon reuses a descriptor that was just closed
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        is_over.set()
        sys.setswitchinterval(interval_s)
        for thread in threads:
            thread.join()


def write(text: bytes, file: int) -> None:
    while text:
        text = text[os.write(file, text) :]


async def read_all(piped: PipeStream) -> bytes:
    found = b""
    while data := await piped.read():
        found += data
    return found


def test_no_file_of_another_thread_is_closed(queries: Queries) -> None:
    async def test() -> None:
        for number in range(RUNS):
            piped = PipeStream(queries, lambda _, file: write(b"%d" % number, file))  # noqa: B023 (read at once)
            assert await read_all(piped) == b"%d" % number
        await queries.close()

    with others() as errors:
        uvloop.run(test())
    assert errors == []
