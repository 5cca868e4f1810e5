"""5,000 Teltonika devices, each connected and sending a packet a second: CPU, memory and how long acks take.

    python -m benchmarks.trackers [--quick] [--json FILE]

The devices are one process with a loop over sockets, their seconds spread evenly; each sends whether or not the packet
before was acknowledged, as devices do. A packet holds one record with eight values.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import struct
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, cast

import uvloop

from benchmarks import memory, report
from benchmarks.boxes import box, saved, wait_saved
from benchmarks.cpu import Meter
from benchmarks.report import Result
from collector.trackers.checksums import crc16_arc
from telemetry.system.process import allow_open_files
from tests.box import Box, free_ports

HOST = "127.0.0.1"
ACCEPTED = b"\x01"
ACK_BYTES = 4
VALUES = bytes.fromhex("ef08 04 ef01f0011505c800 02 421b184310cd 02 f1000060191000000064 00")
"""Ignition, motion, signal and sleep in one byte each, two voltages, operator and odometer."""


class Size(NamedTuple):
    """How many devices, for how long, and how often."""

    devices: int = 5_000
    seconds: float = 30.0
    rounds: int = 3


QUICK = Size(500, 5.0, 2)


def packet(number: int, at_ms: int) -> bytes:
    """One record of a device that moves."""
    place = struct.pack(">QBiihHBH", at_ms, 0, 289_784_000 + number, 410_082_000 + number, 35, 270, 9, 36)
    data = b"\x08\x01" + place + VALUES + b"\x01"
    return bytes(4) + struct.pack(">I", len(data)) + data + struct.pack(">I", crc16_arc(data))


class Device(asyncio.Protocol):
    """A connected device, and how long each ack took."""

    def __init__(self, number: int, latencies_s: list[float]) -> None:
        self._number = number
        self._latencies_s = latencies_s
        self._sent_s: deque[float] = deque()
        self._heard = b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"\x00\x0f" + f"{350_000_000_000_000 + self._number}".encode())

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if not self.ready.done():
            self.ready.set_result(None)
            self._heard = self._heard.removeprefix(ACCEPTED)
        while len(self._heard) >= ACK_BYTES and self._sent_s:
            self._heard = self._heard[ACK_BYTES:]
            self._latencies_s.append(time.perf_counter() - self._sent_s.popleft())

    @property
    def is_waiting(self) -> bool:
        return bool(self._sent_s)

    def send(self, at_ms: int) -> None:
        """Send a packet now."""
        self._sent_s.append(time.perf_counter())
        self._transport.write(packet(self._number, at_ms))

    def close(self) -> None:
        self._transport.close()


class Round(NamedTuple):
    """What a round found."""

    packets: int
    latencies_s: list[float]
    memory_mb: float
    by_program: dict[str, float]


async def drive(found: Box, port: int, size: Size) -> tuple[int, list[float], float]:
    """Connect all, have them send, wait for the last ack. Returns packets, latencies and the box's memory meanwhile."""
    loop, latencies_s = asyncio.get_running_loop(), [0.0][:0]
    devices: list[Device] = []
    for number in range(size.devices):
        _, device = await loop.create_connection(lambda number=number: Device(number, latencies_s), HOST, port)  # type: ignore[misc]
        devices.append(device)
    await asyncio.gather(*(device.ready for device in devices))
    begun_s, sent, total = loop.time(), 0, int(size.devices * size.seconds)
    while sent < total:
        due = min(total, int((loop.time() - begun_s) * size.devices))
        at_ms = time.time_ns() // 1_000_000
        for number in range(sent, due):
            devices[number % size.devices].send(at_ms + number // size.devices)  # no two alike
        sent = due
        await asyncio.sleep(0.002)
    memory_mb = sum(memory.sample(found).values())
    async with asyncio.timeout(60):
        while any(device.is_waiting for device in devices):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    for device in devices:
        device.close()
    return sent, latencies_s, memory_mb


def one_round(found: Box, port: int, size: Size) -> Round:
    """The cost is that of taking the records and of saving them."""
    meter = Meter(found)
    packets, latencies_s, memory_mb = uvloop.run(drive(found, port, size))
    wait_saved(found)
    return Round(packets, latencies_s, memory_mb, meter.cost(packets).by_program)


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    size = QUICK if quick else Size()
    allow_open_files(2 * size.devices + 1_000)
    (port,) = free_ports(1)
    listen = json.dumps([{"protocol": "teltonika", "port": port}])
    with box(collector__listen=listen) as found:
        one_round(found, port, size._replace(seconds=2.0))
        before = saved(found)
        rounds = [one_round(found, port, size) for _ in range(size.rounds)]
        if saved(found) - before != sum(one.packets for one in rounds):
            raise AssertionError("packets are lost or doubled")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        values = [1e3 * sorted(one.latencies_s)[int(share * (len(one.latencies_s) - 1))] for one in rounds]
        yield Result(f"trackers_ack_{name}", statistics.median(values), "ms")
    yield Result("trackers_memory", statistics.median(one.memory_mb for one in rounds), "MB PSS")
    for name in rounds[0].by_program:
        us = statistics.median(one.by_program[name] for one in rounds)
        yield Result(f"trackers_{name}", us, "µs a packet")
    total = statistics.median(sum(one.by_program.values()) for one in rounds)
    yield Result("trackers_cpu", total, "µs a packet")
    yield Result("trackers_cores", total * size.devices / 1e6, "cores at a packet a second each")


if __name__ == "__main__":
    report.run_alone(__doc__, run)
