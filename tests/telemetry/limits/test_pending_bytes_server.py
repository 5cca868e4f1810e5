"""A server's account of what waits for clients, plain and over TLS: it keeps its limit, and readers are served."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from telemetry.http.compression import COMPRESSOR_BYTES, SLICE_BYTES
from telemetry.http.connection import ConnectionLimits
from telemetry.http.server import http_server, listen
from telemetry.limits.pending_bytes import PIECE_BYTES, Pending
from tests.certificates import Authority

HOST = "127.0.0.1"
BODY = bytes(range(256)) * 2**12
REQUEST = b"GET /%b HTTP/1.1\r\nHost: box\r\nAccept-Encoding: gzip\r\n\r\n"
RANDOM = random.Random(1).randbytes(2**20)
"""Hardly shorter when it is compressed: a client that does not read it stalls."""

CLIENTS = 40
PATIENCE_S = 20.0
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answers with one body for all, or with a body of its own for each, which at `/text` may be compressed."""
    body = BODY if scope["path"] == "/shared" else bytes(bytearray(RANDOM if scope["path"] == "/text" else BODY))
    headers = [(b"content-length", b"%d" % len(body))]
    if scope["path"] == "/text":
        headers.append((b"content-type", b"text/plain"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(params=["plain", "tls"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    return Authority(tmp_path).issue() if request.param == "tls" else None


@contextlib.asynccontextmanager
async def serving(pending: Pending, authority: Authority | None) -> AsyncIterator[int]:
    limits = ConnectionLimits(16_384, 1_000, 1_000, PATIENCE_S, int(PATIENCE_S), 8_192, min_compressed_bytes=1_024)
    server = http_server(app, limits, pending, authority.identity() if authority else None)
    listening = listen(HOST, 0)
    running = asyncio.create_task(server.serve([listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def client(port: int, tls: ssl.SSLContext | None, path: bytes) -> Client:
    """A client that has asked. It reads as much as its small buffers hold."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.connect((HOST, port))
    found = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=HOST if tls else None, limit=4_096)
    found[1].write(REQUEST % path)
    return found


async def body_of(reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(len(BODY))


async def compressed_body_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    inflate, found = zlib.decompressobj(31), b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        found += inflate.decompress(await reader.readexactly(size))
        await reader.readexactly(2)
    assert inflate.eof
    return found


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0.01)


def test_own_bodies_are_bounded_and_the_slowest_clients_closed(authority: Authority | None) -> None:
    async def test() -> None:
        pending, tls = Pending(8 * len(BODY)), authority.client() if authority else None
        async with serving(pending, authority) as port, asyncio.timeout(PATIENCE_S):
            clients = [await client(port, tls, b"own") for _ in range(4)]
            for _ in range(CLIENTS):
                clients.append(await client(port, tls, b"own"))
                assert pending.bytes <= pending.max_bytes
                reading = await client(port, tls, b"own")
                assert await body_of(reading[0]) == BODY
                reading[1].close()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await body_of(clients[0][0])
            assert await body_of(clients[-1][0]) == BODY
            for _, writer in clients:
                writer.transport.abort()
            await until(lambda: pending.bytes == 0)

    uvloop.run(test())


def test_a_shared_body_counts_once(authority: Authority | None) -> None:
    async def test() -> None:
        pending, tls = Pending(CLIENTS * len(BODY)), authority.client() if authority else None
        async with serving(pending, authority) as port, asyncio.timeout(PATIENCE_S):
            clients = [await client(port, tls, b"shared") for _ in range(CLIENTS)]
            await until(lambda: len(pending._stalled) == CLIENTS)
            assert len(BODY) < pending.bytes < len(BODY) + CLIENTS * 4 * PIECE_BYTES
            for reader, _ in clients:
                assert await body_of(reader) == BODY
            await until(lambda: pending.bytes == 0)
            for _, writer in clients:
                writer.transport.abort()

    uvloop.run(test())


def test_a_compressed_body_counts_and_a_slow_client_of_one_is_closed(authority: Authority | None) -> None:
    async def test() -> None:
        pending, tls = (
            Pending(8 * (len(RANDOM) + SLICE_BYTES + COMPRESSOR_BYTES)),
            authority.client() if authority else None,
        )
        async with serving(pending, authority) as port, asyncio.timeout(PATIENCE_S):
            slow = [await client(port, tls, b"text") for _ in range(7)]
            await until(lambda: len(pending._stalled) == 7)
            assert 7 * (len(RANDOM) + COMPRESSOR_BYTES) < pending.bytes <= pending.max_bytes
            reading = await client(port, tls, b"text")
            assert hash(await compressed_body_of(reading[0])) == hash(RANDOM)
            bodies = [compressed_body_of(reader) for reader, _ in slow]
            found = await asyncio.gather(*bodies, return_exceptions=True)
            assert any(isinstance(one, asyncio.IncompleteReadError | ConnectionError) for one in found)
            for _, writer in (reading, *slow):
                writer.transport.abort()
            await until(lambda: pending.bytes == 0)

    uvloop.run(test())
