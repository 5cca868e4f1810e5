"""Decoded messages are counted by protocol and transport, rejected ones also by reason."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from collector.listeners.udp import UdpCollector
from telemetry.hot_store.shard import Shard
from telemetry.observability import metrics
from tests.collector.conftest import HOST, PENDING_BYTES, Connect, collecting, line, run, sent, taking
from tests.collector.listeners.test_udp import collecting as collecting_udp
from tests.collector.listeners.test_udp import silence
from tests.collector.trackers.teltonika.test_decoder import datagram

Counts = tuple[float, float, float]


def counted(protocol: str, transport: str, reason: str = "") -> Counts:
    """Messages, records, and messages refused for a reason, so far."""
    return (
        metrics.MESSAGES.of(protocol, transport).value,
        metrics.DECODED.of(protocol, transport).value,
        metrics.REJECTED.of(protocol, transport, reason).value if reason else 0,
    )


def since(before: Counts, after: Counts) -> Counts:
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


async def talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("protocol", "data", "reason", "expected"),
    [
        ("json", line("a") + line("b"), "invalid-json", (2, 2, 0)),
        ("json", line("a") + b"[nonsense]\n" + line("b"), "invalid-json", (3, 2, 1)),
        ("json", b'{"latitude": 1}\n', "invalid-record", (1, 0, 1)),
        ("msgpack", msgpack.packb({"device_id": "m"}) * 3, "invalid-msgpack", (3, 3, 0)),
    ],
    ids=["lines", "broken-line", "wrong-record", "msgpack"],
)
def test_what_comes_over_tcp(
    connect_shared: Connect, protocol: str, data: bytes, reason: str, expected: Counts
) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as found:
            before = counted(protocol, "tcp", reason)
            await talk(found.port, data)
            messages, *others = since(before, counted(protocol, "tcp", reason))
            assert 1 <= messages <= expected[0]  # lines that look alike and come at once are read as one
            assert others == list(expected[1:])

    run(test)


def test_a_connection_that_says_nothing_is_of_no_protocol(connect_shared: Connect) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as found:
            before = [counted(protocol, "tcp") for protocol in ("unknown", "json")]
            await talk(found.port, b"")
            after = [counted(protocol, "tcp") for protocol in ("unknown", "json")]
            assert [since(*pair)[1] for pair in zip(before, after, strict=True)] == [0, 0]

    run(test)


def test_connections_and_unfinished_bytes_are_told_now(connect_shared: Connect) -> None:
    async def test() -> None:
        async with collecting(connect_shared, max_connections=7, max_per_address=5, max_held_bytes=999) as found:
            held = metrics.HELD_BYTES.of(str(found.port))
            _, writer = await asyncio.open_connection(HOST, found.port)
            writer.write(b'{"device_id":')
            async with asyncio.timeout(10):
                while held.read() != 13:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (metrics.CONNECTIONS.one.read(), metrics.CONNECTIONS_LIMIT.one.read()) == (1, 7)
            assert (metrics.OF_ONE_ADDRESS.one.read(), metrics.OF_ONE_ADDRESS_LIMIT.one.read()) == (1, 5)
            assert metrics.HELD_LIMIT.of(str(found.port)).read() == 999
            writer.close()
            async with asyncio.timeout(10):
                while metrics.CONNECTIONS.one.read() != 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert held.read() == 0
            assert metrics.OF_ONE_ADDRESS.one.read() == 0

    run(test)


def test_what_comes_over_udp(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake, collecting_udp(intake) as (_, transport, device):
            before = counted("teltonika", "udp", "invalid-frame")
            datagrams = metrics.DATAGRAMS.one.value
            transport.sendto(datagram())
            await asyncio.wait_for(device.received.get(), 5)
            transport.sendto(datagram()[:-1])
            await silence(device)
            assert since(before, counted("teltonika", "udp", "invalid-frame")) == (2, 1, 1)
            assert metrics.DATAGRAMS.one.value - datagrams == 2

    run(test)


def test_datagrams_without_room_are_dropped_and_counted(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake, collecting_udp(intake) as (udp, _, _device):
            assert isinstance(udp, UdpCollector)
            before = metrics.DATAGRAMS_DROPPED.one.value
            shard.client.client_pause(5_000, all=False)
            full = asyncio.ensure_future(intake.submit([sent()], PENDING_BYTES))
            await asyncio.sleep(0.05)
            udp.received(datagram(), (HOST, 1), lambda _answer: None)
            assert metrics.DATAGRAMS_DROPPED.one.value - before == 1
            shard.client.client_unpause()
            await full

    run(test)
