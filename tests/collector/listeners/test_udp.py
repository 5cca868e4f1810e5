"""UDP: a datagram gets a reply once its records are on disk, otherwise none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from collector.framing.frame_decoder import Options
from collector.ingest.group_commit import Intake
from collector.listeners.udp import UdpCollector
from collector.trackers.teltonika.decoder import Teltonika
from telemetry.codec.record_parser import Arrival
from telemetry.hot_store.operations.quarantine import read_quarantine
from telemetry.hot_store.shard import Shard
from tests.collector.conftest import HOST, NOW_US, Connect, run, tail, taking
from tests.collector.trackers.teltonika.test_decoder import AT_MS, IMEI, datagram

ANSWER = bytes.fromhex("00050000010501")


class Device(asyncio.DatagramProtocol):
    """A device's socket, and the replies that it received."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, _address: object) -> None:
        self.received.put_nowait(data)


@asynccontextmanager
async def collecting(intake: Intake) -> AsyncIterator[tuple[UdpCollector, asyncio.DatagramTransport, Device]]:
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind((HOST, 0))
    port = listening.getsockname()[1]
    udp = UdpCollector(
        intake, lambda address: Teltonika(Options(transport="udp", address=address)), lambda: Arrival(NOW_US)
    )
    await udp.start(listening)
    transport, device = await asyncio.get_running_loop().create_datagram_endpoint(Device, remote_addr=(HOST, port))
    try:
        yield udp, transport, device
    finally:
        transport.close()
        await udp.stop(1)


async def silence(device: Device) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(device.received.get(), 0.3)


def test_a_datagram_is_answered_when_its_records_are_stored(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake, collecting(intake) as (_, transport, device):
            for number in range(20):
                transport.sendto(datagram(number=number, at_ms=AT_MS + 1_000 * number))
            answers = [await asyncio.wait_for(device.received.get(), 5) for _ in range(20)]
            assert sorted(answer[5] for answer in answers) == list(range(20))
            stored = tail(shard, IMEI)
            assert [one.record.transport for one in stored] == ["udp"] * 20
            transport.sendto(datagram(number=20, at_ms=AT_MS))
            assert (await asyncio.wait_for(device.received.get(), 5))[5] == 20
            assert len(tail(shard, IMEI)) == 20, "sent again: acknowledged and not stored"

    run(test)


def test_a_broken_datagram_is_kept_and_not_answered(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake, collecting(intake) as (_, transport, device):
            transport.sendto(datagram()[:-1])
            await silence(device)
            assert [one.raw for one in read_quarantine(shard)] == [datagram()[:-1]]
            transport.sendto(datagram())
            assert await asyncio.wait_for(device.received.get(), 5) == ANSWER

    run(test)


def test_while_the_store_is_another_nothing_is_answered(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake, collecting(intake) as (_, transport, device):
            transport.sendto(datagram())
            assert await asyncio.wait_for(device.received.get(), 5) == ANSWER
            client.delete(shard.keys.store)
            transport.sendto(datagram())
            await silence(device)

    run(test)


def test_what_is_with_the_intake_is_answered_at_the_end(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake, collecting(intake) as (udp, transport, device):
            transport.sendto(datagram())
            while not shard.devices() and device.received.empty():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await udp.stop(5)
            assert await asyncio.wait_for(device.received.get(), 5) == ANSWER

    run(test)
