"""What a thread writes to a pipe, read by the event loop: only as fast as the client reads it, and in no file.

The pipe is read without a transport. uvloop's closes its file twice, and another thread's that got the same number in
between would be closed instead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import duckdb

from api.execution.query_pool import Queries
from api.execution.slots import Reader

MAX_WAITING_BYTES = 2**18
"""Bytes that may wait to be read; the pipe itself holds as many as the kernel says, mostly 64 KiB."""

READ_BYTES = 2**16
"""Bytes that are read at once."""

Work = Callable[[duckdb.DuckDBPyConnection, int], object]


class Piped:
    """The bytes that `work(connection, file)` writes, as one of the queries, on their way.

    A writer that nobody reads from waits for ever, deaf to an interrupt. So what nobody wants any more is read all the
    same, and dropped, until the writer has heard that it is to end.
    """

    def __init__(self, queries: Queries, work: Work, reader: Reader | None = None) -> None:
        """`reader` is who takes the bytes, and loses its slot if it is slow while others wait."""
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._file: int | None = None
        self._waiting = bytearray()
        self._is_unwanted = self._is_over = self._is_opening = False
        self._is_paused = True
        self._has_changed = asyncio.Event()
        self._writing = asyncio.create_task(queries.run(self._write, reader))
        self._writing.add_done_callback(self._on_written)

    async def read(self) -> bytes:
        """The next bytes; none at the end. What ended the writing early is raised where the end would be."""
        while not self._waiting and not self._is_over:
            self._has_changed.clear()
            await self._has_changed.wait()
        if not self._waiting:
            await self._writing
        found, self._waiting = bytes(self._waiting), bytearray()
        self._read_on()
        return found

    def close(self) -> None:
        """End the writing if it is not over; the rest is unwanted."""
        self._is_unwanted = True
        self._waiting.clear()
        self._writing.cancel()
        self._read_on()

    # In a thread of the queries

    def _write(self, connection: duckdb.DuckDBPyConnection) -> None:
        read_end, write_end = os.pipe()
        self._is_opening = True
        self._loop.call_soon_threadsafe(self._open, read_end)
        try:
            self._work(connection, write_end)
        finally:
            os.close(write_end)

    # In the event loop

    def _open(self, file: int) -> None:
        os.set_blocking(file, False)
        self._file = file
        self._read_on()

    def _read_on(self) -> None:
        if self._is_paused and self._file is not None:
            self._is_paused = False
            self._loop.add_reader(self._file, self._on_readable, self._file)

    def _on_readable(self, file: int) -> None:
        try:
            data = os.read(file, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(file)
            os.close(file)
            self._end()
        elif not self._is_unwanted:
            self._waiting += data
            self._has_changed.set()
            if len(self._waiting) >= MAX_WAITING_BYTES:
                self._is_paused = True
                self._loop.remove_reader(file)

    def _on_written(self, writing: asyncio.Task[None]) -> None:
        if not writing.cancelled():
            writing.exception()  # it is raised for who reads to the end
        if not self._is_opening:  # it never began
            self._end()

    def _end(self) -> None:
        self._file, self._is_over = None, True
        self._has_changed.set()
