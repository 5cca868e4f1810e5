"""10,000 devices that change each second, and 1,000 readers of `/v1/live`: what reaches whom, how late, at what cost.

    python -m benchmarks.live [--quick] [--json FILE]

Three kinds of readers, each kind in a box of its own: all of them want all devices, which on two cores nobody can be
given; a tenth of the devices each, by an area; one device each. Sender and readers are this process, one loop. A reader
counts what it gets; the first one also sees how old it is. At the end each must have the newest state of what it asked
for: that is waited for, whatever came between.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import statistics
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple, cast

import httpx
import msgpack
import psutil
import uvloop

from benchmarks import report
from benchmarks.boxes import box
from benchmarks.cpu import Meter, peak_mb, program
from benchmarks.report import Result
from telemetry.system.process import allow_open_files
from tests.box import Box

HOST = "127.0.0.1"
A_FRAME = 1_000
ASK_S = 0.05
PATIENCE_S, QUIET_S = 300.0, 2.0
KINDS = ("one", "tenth", "all")
MARK, TAIL_BYTES = b'"altitude_m":', 1_024
_SECOND = re.compile(rb'"altitude_m":(\d+)\.')


class Size(NamedTuple):
    """How many devices change each second, how many read, and for how long."""

    devices: int = 10_000
    readers: int = 1_000
    seconds: int = 30


QUICK = Size(1_000, 100, 5)


def device(number: int) -> str:
    return f"live-{number:05}"


def query(kind: str, reader: int, size: Size) -> str:
    """What a reader asks for."""
    if kind == "all":
        return ""
    if kind == "one":
        return f"?device_id={device(reader * (size.devices // size.readers))}"
    west = reader % 10
    return f"?bbox={west - 0.5},-1,{west + 0.4},1"


def frame(number: int, second: int, first: int) -> bytes:
    """One batch, of `A_FRAME` devices. The altitude says which second it is; each device stays in its tenth."""
    records = [
        {"device_id": device(n), "lat": second % 50 / 1_000, "lon": n % 10, "speed": 36.0, "altitude": second}
        for n in range(first, first + A_FRAME)
    ]
    content: bytes = msgpack.packb([1, "live", number, records])
    return struct.pack(">I", len(content)) + content


class Reader(asyncio.Protocol):
    """Counts states as they come. With `begun_s`, when each second began to be sent, it notes how late they are."""

    def __init__(self, path: str, begun_s: dict[int, float] | None = None) -> None:
        self._path = path
        self._begun_s = begun_s
        self._noted = -1
        self._tail = b""
        self.states = self.size_bytes = 0
        self.heard_s = 0.0
        self.late_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(f"GET {self._path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self.states += data.count(MARK)
        self.heard_s = time.perf_counter()
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if self._begun_s is not None and self._noted < (second := self.newest) and second in self._begun_s:
            self._noted = second
            self.late_s.append(self.heard_s - self._begun_s[second])

    @property
    def newest(self) -> int:
        """The second of the state that came last; -1 if there was none."""
        found = _SECOND.findall(self._tail)
        return int(found[-1]) if found else -1

    def close(self) -> None:
        self._transport.close()


class Found(NamedTuple):
    """What readers of one kind came to. `drained_s` is how long after the last change all had what is newest."""

    seconds: float
    ack_s: list[float]
    latest_ms: list[float]
    late_s: list[float]
    states: int
    size_bytes: int
    drained_s: float


async def store(found: Box, size: Size, seconds: range, begun_s: dict[int, float]) -> list[float]:
    """Have every device report each second; returns how long each batch's answer took."""
    reading, writing = await asyncio.open_connection(HOST, found.tcp_port)
    taken, start_s = list[float](), time.perf_counter()
    for second in seconds:
        await asyncio.sleep(max(0.0, start_s + second - seconds.start - time.perf_counter()))
        begun_s[second] = time.perf_counter()
        for at in range(0, size.devices, A_FRAME):
            data, at_s = frame(1 + second * size.devices + at, second, at), time.perf_counter()
            writing.write(data)
            (length,) = struct.unpack(">I", await reading.readexactly(4))
            await reading.readexactly(length)
            taken.append(time.perf_counter() - at_s)
    writing.close()
    return taken


def ask(port: int, seconds: float) -> list[float]:
    """How long each of some questions for one device's latest takes meanwhile, ms: from a process of its own."""
    taken, end_s = list[float](), time.perf_counter() + seconds
    with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60) as client:
        while time.perf_counter() < end_s:
            start_s = time.perf_counter()
            client.get(f"/v1/devices/{device(0)}/latest").raise_for_status()
            taken.append(1e3 * (time.perf_counter() - start_s))
            time.sleep(ASK_S)
    return taken


async def watch(found: Box, kind: str, size: Size) -> Found:
    """Store and read at once, then wait until each reader has what is newest.

    Raises `TimeoutError` if one has something older for long.
    """
    loop, begun_s = asyncio.get_running_loop(), dict[int, float]()
    paths = [f"/v1/live{query(kind, number, size)}" for number in range(size.readers)]
    readers = [Reader(path, None if number else begun_s) for number, path in enumerate(paths)]
    for reader in readers:
        await loop.create_connection(partial(_itself, reader), HOST, found.api_port)
    await quiet(readers)
    before = sum(one.states for one in readers), sum(one.size_bytes for one in readers)
    start_s = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
        asking = loop.run_in_executor(beside, ask, found.api_port, size.seconds)
        ack_s = await store(found, size, range(1, 1 + size.seconds), begun_s)
        ended_s = time.perf_counter()
        latest_ms = await asking
    states, size_bytes = (
        sum(values) for values in zip(*((one.states, one.size_bytes) for one in readers), strict=True)
    )
    async with asyncio.timeout(PATIENCE_S):
        while any(one.newest != size.seconds for one in readers):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    drained_s = max(one.heard_s for one in readers) - ended_s
    for one in readers:
        one.close()
    return Found(
        ended_s - start_s, ack_s, latest_ms, readers[0].late_s, states - before[0], size_bytes - before[1], drained_s
    )


def _itself(reader: Reader) -> Reader:
    return reader


async def quiet(readers: list[Reader]) -> None:
    """Return when nobody has heard anything for a while."""
    async with asyncio.timeout(PATIENCE_S):
        while time.perf_counter() - max(one.heard_s for one in readers) < QUIET_S:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def of_kind(kind: str, size: Size) -> Iterator[Result]:
    """In a box of its own."""
    with box(api__max_live_readers=str(size.readers + 1), api__max_live_readers_per_address="0") as found:
        uvloop.run(store_once(found, size))
        meter = Meter(found)
        seen = uvloop.run(watch(found, kind, size))
        changes = size.devices * size.seconds
        cost, name = meter.cost(changes), f"live_{kind}"
        [api] = [one for one in psutil.Process(found.pid).children(recursive=True) if program(one.cmdline()) == "api"]
        yield Result(f"{name}_changes", changes / seen.seconds, "changes/s stored")
        yield Result(f"{name}_ack_p50", 1e3 * statistics.median(seen.ack_s), "ms, a batch of 1,000")
        yield Result(f"{name}_latest_p50", statistics.median(seen.latest_ms), "ms")
        yield Result(f"{name}_latest_p99", sorted(seen.latest_ms)[int(0.99 * len(seen.latest_ms))], "ms")
        yield Result(f"{name}_states", seen.states / seen.seconds, "states/s, all readers together")
        yield Result(f"{name}_bytes", seen.size_bytes / seen.seconds / 1e6, "MB/s")
        yield Result(
            f"{name}_late",
            1e3 * statistics.median(seen.late_s),
            "ms since the second's first batch was sent, one reader's median",
        )
        yield Result(f"{name}_late_most", 1e3 * max(seen.late_s), "ms")
        yield Result(f"{name}_drained", 1e3 * seen.drained_s, "ms until all had what is newest")
        yield Result(f"{name}_memory", peak_mb(api.pid), "MB, the API program at most")
        yield from cost.results(name, "µs a change")


async def store_once(found: Box, size: Size) -> None:
    """So that all devices are known."""
    await store(found, size, range(1), {})


def run(quick: bool) -> Iterator[Result]:
    """Each kind after the other."""
    size = QUICK if quick else Size()
    allow_open_files(2 * size.readers + 1_000)
    for kind in KINDS:
        yield from of_kind(kind, size)


if __name__ == "__main__":
    report.run_alone(__doc__, run)
