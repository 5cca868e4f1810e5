"""Pacing of a TCP connection: it is read no faster than its records are stored."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import redis

from collector.framing.decoder import QUIET_S
from collector.listeners.connection.read_pacing import SHORT_TURN_BYTES, TURN_BYTES
from collector.listeners.connection.reply_queue import MAX_PENDING
from telemetry.hot_store.shard import Shard
from tests.collector.conftest import (
    HOST,
    RECEIVED,
    Connect,
    collecting,
    line,
    numbers,
    run,
    tail,
)
from tests.collector.listeners.senders import sending, until

PAUSE_MS = 20_000


def test_with_a_tiny_bound_all_lines_are_answered_and_what_waits_stays_small(
    connect_shared: Connect, shard: Shard
) -> None:
    most = 0

    async def test() -> None:
        async with collecting(connect_shared, max_pending_bytes=500) as box:
            offer = box.intake.offer

            def noting(*args: object) -> asyncio.Future[bool]:
                nonlocal most
                done = offer(*args)  # type: ignore[arg-type]
                most = max(most, box.intake._pending_bytes)
                return done

            box.intake.offer = noting  # type: ignore[method-assign, assignment]

            async def one(device: str) -> None:
                async with sending(box) as sender:
                    reading = asyncio.ensure_future(sender.answers(300))
                    for number in range(0, 300, 10):
                        await sender.send(b"".join(line(device, n) for n in range(number, number + 10)))
                        await asyncio.sleep(0)
                    assert await reading == [RECEIVED] * 300

            await asyncio.gather(*(one(f"d{number}") for number in range(10)))

    run(test)
    assert most < 500 + 10 * TURN_BYTES, "each connection may have been in its turn"
    for number in range(10):
        assert numbers(tail(shard, f"d{number}")) == list(range(300))


def test_while_the_store_is_slow_little_is_read(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    data = b"".join(line("d", number) for number in range(200_000))

    async def test() -> None:
        async with collecting(connect_shared, max_pending_bytes=10_000) as box:
            client.client_pause(PAUSE_MS, all=False)
            loop = asyncio.get_running_loop()
            with socket.socket() as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
                sender.setblocking(False)
                await loop.sock_connect(sender, (HOST, box.port))
                sent = 0
                with contextlib.suppress(TimeoutError):
                    while sent < len(data):
                        piece = data[sent : sent + 65_536]
                        await asyncio.wait_for(loop.sock_sendall(sender, piece), 0.3)
                        sent += len(piece)
                assert box.intake._pending_bytes < 10_000 + TURN_BYTES
                client.client_unpause()
            assert sent < len(data) - 65_536

    run(test)


def test_what_waits_passes_its_bound_by_a_sip_of_each_connection(connect_shared: Connect, client: redis.Redis) -> None:
    many, bound = 200, 10_000
    lines = line("d") * (TURN_BYTES // len(line("d")))

    async def test() -> None:
        async with collecting(connect_shared, max_pending_bytes=bound) as box, contextlib.AsyncExitStack() as stack:
            senders = [await stack.enter_async_context(sending(box)) for _ in range(many)]
            client.client_pause(PAUSE_MS, all=False)
            try:
                for sender in senders:
                    await sender.send(lines)
                await until(lambda: len(box.tcp._waiting) == many)
                assert bound <= box.intake._pending_bytes < bound + TURN_BYTES + many * SHORT_TURN_BYTES
            finally:
                client.client_unpause()
            for sender in senders:
                await sender.answers(len(lines) // len(line("d")))

    run(test)


def test_lines_that_wait_for_their_answer_are_bounded(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    count = 50 * MAX_PENDING
    alone = b'[{"device_id":"d"}]\n'  # a line that isn't read together with others

    async def test() -> None:
        async with collecting(connect_shared, max_pending_bytes=2**30) as box, sending(box) as sender:
            await until(lambda: len(box.tcp._connections) == 1)
            client.client_pause(PAUSE_MS, all=False)
            sending_all = asyncio.ensure_future(sender.send(alone * count))
            [connection] = box.tcp._connections
            await until(lambda: len(connection._replies) >= MAX_PENDING)
            await asyncio.sleep(0.1)
            assert len(connection._replies) < MAX_PENDING + TURN_BYTES // len(alone)
            client.client_unpause()
            assert await sender.answers(count) == [RECEIVED] * count
            await sending_all

    run(test)
    assert shard.unsaved() == count


def test_whoever_was_held_is_read_again(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    """Also a connection that has no answer to wait for: it was held with half a line while others filled the intake."""

    async def test() -> None:
        async with collecting(connect_shared, max_pending_bytes=100) as box, contextlib.AsyncExitStack() as stack:
            senders = [await stack.enter_async_context(sending(box)) for _ in range(40)]
            for _ in range(5):
                client.client_pause(PAUSE_MS, all=False)
                await senders[0].send(line("first") * 5)
                await until(lambda: not box.intake.has_room)
                for sender in senders[1:]:
                    await sender.send(line("d") * 3 + b'{"device_id":')
                for sender in senders[1:]:
                    await sender.send(b'"e"}\n')
                await asyncio.sleep(0.01)
                client.client_unpause()
                assert await senders[0].answers(5) == [RECEIVED] * 5
                for sender in senders[1:]:
                    assert await sender.answers(4) == [RECEIVED] * 4

    run(test)


def test_whoever_was_let_go_too_late_is_held_again(connect_shared: Connect) -> None:
    """There was room, but others took it before this connection could read on."""

    async def test() -> None:
        async with collecting(connect_shared, max_pending_bytes=100) as box, sending(box) as sender:
            intake = box.intake
            await sender.send(line("d"))
            assert await sender.answer() == RECEIVED
            intake._pending_bytes = 200
            intake._room.clear()
            await sender.send(b'{"device_id":')
            await asyncio.sleep(QUIET_S + 0.05)  # silence is another chance to look
            intake._room.set()
            intake._room.clear()
            await asyncio.sleep(0.02)
            intake._pending_bytes = 0
            intake._room.set()
            await sender.send(b'"d"}\n')
            assert await sender.answer() == RECEIVED

    run(test)
