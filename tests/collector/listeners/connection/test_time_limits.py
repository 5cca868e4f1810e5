"""Time limits of a TCP connection: senders that are slow, silent, or do not read their answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time

import pytest
import redis

from collector.listeners import tcp as tcp_module
from collector.listeners.connection import time_limits
from collector.listeners.connection.time_limits import Timeouts
from telemetry.hot_store.shard import Shard
from tests.collector.conftest import (
    HOST,
    RECEIVED,
    Connect,
    collecting,
    line,
    run,
)
from tests.collector.listeners.senders import WAIT_S, Sender, sending

PAUSE_MS = 20_000


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at time limits more often than the program does."""
    monkeypatch.setattr(tcp_module, "SWEEP_S", 0.02)


async def seconds_until_closed(sender: Sender, trickle: bytes = b"") -> float:
    """How long it takes until the other end closes, while a byte of `trickle` is sent every 20 ms."""
    began_s = time.monotonic()
    closed = asyncio.ensure_future(sender.rest())
    for byte in trickle:
        if closed.done():
            break
        with contextlib.suppress(ConnectionError):
            await sender.send(bytes([byte]))
        await asyncio.sleep(0.02)
    with contextlib.suppress(ConnectionError):
        assert await closed == b""
    return time.monotonic() - began_s


@pytest.mark.parametrize("begin", [b'{"device_id":"', line("d") + b'{"x', b"nonsense\n!"])
def test_a_slow_sender_is_cut(connect_shared: Connect, begin: bytes) -> None:
    async def test() -> None:
        async with collecting(connect_shared, Timeouts(message_s=0.3, idle_s=60)) as box, sending(box) as sender:
            await sender.send(begin)
            if b"\n" in begin:
                await sender.answer()
            assert 0.2 < await seconds_until_closed(sender, b"x" * 200) < 1.5

    run(test)


@pytest.mark.parametrize("begin", [b"", line("d")])
def test_a_silent_sender_is_cut(connect_shared: Connect, begin: bytes) -> None:
    async def test() -> None:
        async with collecting(connect_shared, Timeouts(message_s=60, idle_s=0.3)) as box, sending(box) as sender:
            if begin:
                await sender.send(begin)
                await sender.answer()
            assert 0.2 < await seconds_until_closed(sender) < 1.5

    run(test)


def test_who_sends_whole_messages_now_and_then_is_not_cut(connect_shared: Connect) -> None:
    async def test() -> None:
        async with collecting(connect_shared, Timeouts(message_s=0.5, idle_s=0.5)) as box, sending(box) as sender:
            for _ in range(5):
                await sender.send(line("d") + b'{"device')
                await asyncio.sleep(0.15)
                await sender.send(b'_id":"d"}\n')
                assert await sender.answers(2) == [RECEIVED] * 2

    run(test)


def test_who_had_to_wait_for_the_box_is_not_taken_for_slow(
    connect_shared: Connect, client: redis.Redis, shard: Shard
) -> None:
    async def test() -> None:
        timeouts = Timeouts(message_s=0.4, idle_s=0.4)
        async with collecting(connect_shared, timeouts, max_pending_bytes=1) as box, sending(box) as sender:
            client.client_pause(PAUSE_MS, all=False)
            await sender.send(line("d") + b'{"device')
            await asyncio.sleep(0.6)
            client.client_unpause()
            assert await sender.answer() == RECEIVED
            await asyncio.sleep(0.06)
            await sender.send(b'_id":"d"}\n')
            assert await sender.answer() == RECEIVED

    run(test)


def test_who_does_not_read_its_answers_is_cut(connect_shared: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limits, "LINGER_S", 0.1)

    async def test() -> None:
        async with collecting(connect_shared, Timeouts(message_s=0.2, idle_s=60)) as box:
            loop = asyncio.get_running_loop()
            with socket.socket() as sender:
                sender.setblocking(False)
                await loop.sock_connect(sender, (HOST, box.port))
                with pytest.raises(ConnectionError):
                    await asyncio.wait_for(loop.sock_sendall(sender, b"x\n" * 2_000_000), WAIT_S)
            async with sending(box) as other:
                await other.send(line("d"))
                assert await other.answer() == RECEIVED

    run(test)


def test_who_does_not_read_the_last_answer_is_let_go_of(
    connect_shared: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "LINGER_S", 0.1)
    data = json.dumps([{"device_id": "d", "location": "x" * 255, "speed": 1}] * 900).encode()

    async def test() -> None:
        timeouts = Timeouts(message_s=0.2, idle_s=60)
        async with collecting(connect_shared, timeouts, max_connections=1) as box:
            loop = asyncio.get_running_loop()
            with socket.socket() as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                sender.setblocking(False)
                await loop.sock_connect(sender, (HOST, box.port))
                await loop.sock_sendall(sender, data)
                sender.shutdown(socket.SHUT_WR)
                await asyncio.sleep(1)
                async with sending(box) as other:
                    await other.send(line("d"))
                    assert await other.answer() == RECEIVED, "there is room for another connection again"

    run(test)
