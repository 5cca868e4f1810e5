"""The accept loop: limits before the handshake, and a failing accept that ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop

from telemetry.http.server import listen
from telemetry.limits.concurrency import handshake_share, tcp_share
from telemetry.limits.connections import Connections, Ticket
from telemetry.network import acceptor as acceptor_module
from telemetry.network.acceptor import Acceptor
from telemetry.network.tls import Identity
from tests.certificates import Authority

HOST = "127.0.0.1"
WAIT_S = 20.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates")).issue()


class Echo(asyncio.Protocol):
    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.ticket.close()


class Accepting(NamedTuple):
    port: int
    connections: Connections
    acceptor: Acceptor


@contextlib.asynccontextmanager
async def accepting(
    make: Callable[[Ticket], asyncio.BaseProtocol] = Echo, maximum: int = 10, tls: Identity | None = None
) -> AsyncIterator[Accepting]:
    listening, connections = listen(HOST, 0), Connections(tcp_share(maximum, 0), time.monotonic)
    acceptor = Acceptor(listening, connections, make, tls)
    try:
        yield Accepting(listening.getsockname()[1], connections, acceptor)
    finally:
        acceptor.close()
        await acceptor.wait_closed()


async def echoed(port: int, **tls: Any) -> bool:
    reader, writer = await asyncio.open_connection(HOST, port, **tls)
    writer.write(b"x")
    found = await asyncio.wait_for(reader.read(1), WAIT_S)
    writer.close()
    return found == b"x"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test())


def test_connections_are_counted_out_and_one_too_many_is_closed() -> None:
    async def test() -> None:
        async with accepting(maximum=2) as found:
            assert await echoed(found.port)
            pairs = [await asyncio.open_connection(HOST, found.port) for _ in range(2)]
            await until(lambda: found.connections.share.open == 2)
            refused, writer = await asyncio.open_connection(HOST, found.port)
            assert await asyncio.wait_for(refused.read(), WAIT_S) == b""
            for _, one in (*pairs, (refused, writer)):
                one.close()
            await until(lambda: found.connections.share.open == 0)
            assert await echoed(found.port)

    run(test)


def test_silent_handshakes_count_and_go_by_a_time_out(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor_module, "HANDSHAKE_S", 1.0)

    async def test() -> None:
        tls = Identity(authority.certificate, authority.key, handshake_share(3, 2))
        async with accepting(tls=tls) as found:
            silent = [await asyncio.open_connection(HOST, found.port) for _ in range(3)]
            assert await asyncio.wait_for(silent[2][0].read(), WAIT_S) == b""
            assert tls.handshakes.open == found.connections.share.open == 2
            await until(lambda: tls.handshakes.open == found.connections.share.open == 0)
            assert await echoed(found.port, ssl=authority.client(), server_hostname=HOST)
            for _, writer in silent:
                writer.close()
            await until(lambda: found.connections.share.open == 0)

    run(test)


def test_a_failed_handshake_is_counted_out(authority: Authority) -> None:
    async def test() -> None:
        tls = authority.identity()
        async with accepting(tls=tls) as found:
            reader, writer = await asyncio.open_connection(HOST, found.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.wait_for(reader.read(), WAIT_S)
            await until(lambda: tls.handshakes.open == found.connections.share.open == 0)
            writer.close()

    run(test)


def test_a_connection_whose_protocol_fails_is_counted_out(caplog: pytest.LogCaptureFixture) -> None:
    def make(_ticket: Ticket) -> asyncio.Protocol:
        raise RuntimeError("broken")

    async def test() -> None:
        async with accepting(make) as found:
            reader, writer = await asyncio.open_connection(HOST, found.port)
            assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
            assert found.connections.share.open == 0
            writer.close()

    run(test)
    assert [record.getMessage() for record in caplog.records] == ["cannot open a connection"]


class Failing(socket.socket):
    """A listening socket whose accept fails for want of files, a number of times."""

    failures = 3

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_want_of_files_is_logged_once_and_the_port_stays_open(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor_module, "PAUSE_S", 0.01)

    async def test() -> None:
        listening = Failing(fileno=listen(HOST, 0).detach())
        acceptor = Acceptor(listening, Connections(tcp_share(10, 0), time.monotonic), Echo)
        port = listening.getsockname()[1]
        assert await echoed(port)
        assert listening.failures == 0
        acceptor.close()
        await acceptor.wait_closed()

    with caplog.at_level(logging.WARNING):
        run(test)
    [line] = caplog.records
    assert line.getMessage().startswith("cannot accept connections: [Errno 24] Too many open files; raise ulimit -Hn")


def test_over_a_unix_socket(tmp_path: Path) -> None:
    async def test() -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        acceptor = Acceptor(listening, Connections(tcp_share(10, 1), time.monotonic), Echo)
        pairs = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(2)]
        for reader, writer in pairs:
            writer.write(b"x")
            assert await asyncio.wait_for(reader.read(1), WAIT_S) == b"x"
            writer.close()
        acceptor.close()
        await acceptor.wait_closed()

    run(test)
