"""Devices that send to the TCP collector in tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

from tests.collector.conftest import (
    HOST,
    Collecting,
)

WAIT_S = 10


class Sender:
    """A device at the other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Send no more, but read on."""
        self._writer.write_eof()

    async def answer(self) -> bytes:
        """The next line."""
        return await asyncio.wait_for(self._reader.readline(), WAIT_S)

    async def answers(self, count: int) -> list[bytes]:
        return [await self.answer() for _ in range(count)]

    async def rest(self) -> bytes:
        """All that comes before the other end closes. Raises `ConnectionResetError` if it doesn't close cleanly."""
        return await asyncio.wait_for(self._reader.read(), WAIT_S)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """Close with a reset."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """The same where there is nothing unread, too."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()


@contextlib.asynccontextmanager
async def sending(box: Collecting) -> AsyncIterator[Sender]:
    reader, writer = await asyncio.open_connection(HOST, box.port)
    sender = Sender(reader, writer)
    try:
        yield sender
    finally:
        sender.close()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition that other tasks fulfil."""
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
