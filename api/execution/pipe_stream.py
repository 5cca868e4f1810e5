"""Stream from a worker thread to the event loop through a pipe, with backpressure and without a temporary file.

The pipe is read without a transport: uvloop's pipe transport closes its descriptor twice, and may close a descriptor
of another thread that received the same number in between.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import duckdb

from api.execution.query_pool import Queries
from api.execution.slots import Reader

MAX_BUFFERED_BYTES = 2**18
"""Maximum buffered bytes, in addition to the pipe's own buffer in the kernel."""

READ_BYTES = 2**16
"""Maximum bytes of one read."""

Work = Callable[[duckdb.DuckDBPyConnection, int], object]


class PipeStream:
    """The bytes that `work(connection, file)` writes in a thread of the queries.

    A writer that blocks on a full pipe cannot be interrupted. So after `close`, the remaining bytes are read and
    dropped until the writer ends.
    """

    def __init__(self, queries: Queries, work: Work, reader: Reader | None = None) -> None:
        """`reader` is the client that reads the bytes; it loses its slot if it is slow while others wait."""
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._file: int | None = None
        self._buffer = bytearray()
        self._is_discarding = self._is_over = self._has_started = False
        self._is_paused = True
        self._has_changed = asyncio.Event()
        self._writing = asyncio.create_task(queries.run(self._write, reader))
        self._writing.add_done_callback(self._on_written)

    async def read(self) -> bytes:
        """The next bytes; empty at the end. An error of the writer is raised at the end."""
        while not self._buffer and not self._is_over:
            self._has_changed.clear()
            await self._has_changed.wait()
        if not self._buffer:
            await self._writing
        data, self._buffer = bytes(self._buffer), bytearray()
        self._resume()
        return data

    def close(self) -> None:
        """Cancel the writer if it is still running, and discard the rest."""
        self._is_discarding = True
        self._buffer.clear()
        self._writing.cancel()
        self._resume()

    # In a thread of the queries

    def _write(self, connection: duckdb.DuckDBPyConnection) -> None:
        read_end, write_end = os.pipe()
        self._has_started = True
        self._loop.call_soon_threadsafe(self._open, read_end)
        try:
            self._work(connection, write_end)
        finally:
            os.close(write_end)

    # In the event loop

    def _open(self, file: int) -> None:
        os.set_blocking(file, False)
        self._file = file
        self._resume()

    def _resume(self) -> None:
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
        elif not self._is_discarding:
            self._buffer += data
            self._has_changed.set()
            if len(self._buffer) >= MAX_BUFFERED_BYTES:
                self._is_paused = True
                self._loop.remove_reader(file)

    def _on_written(self, writing: asyncio.Task[None]) -> None:
        if not writing.cancelled():
            writing.exception()  # mark as retrieved; `read` raises it
        if not self._has_started:
            self._end()

    def _end(self) -> None:
        self._file, self._is_over = None, True
        self._has_changed.set()
