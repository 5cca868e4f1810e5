"""A tracker's older connection ends after it has logged in over a newer one, on real sockets with a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from collector.framing.decoder import Decoder
from collector.framing.frame_decoder import Options
from collector.listeners import tcp as tcp_module
from collector.listeners.connection import time_limits
from collector.listeners.connection.time_limits import Timeouts
from collector.listeners.extra_ports import decoder_of
from collector.listeners.tracker_logins import Logins
from collector.program import timeouts_of
from collector.protocols import MessageLimits
from telemetry.config.settings import Collector
from telemetry.hot_store.shard import Shard
from telemetry.observability import metrics
from tests.collector.conftest import HOST, Collecting, Connect, collecting, run, tail
from tests.collector.trackers import test_tk103
from tests.collector.trackers.gt06 import test_decoder
from tests.collector.trackers.teltonika import test_decoder as test_teltonika

WAIT_S = 10
ACK = b"\x00\x00\x00\x01"
PAUSE_MS = 20_000
LIMITS = MessageLimits(2**20, 1_000)


class Device:
    """A tracker's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def exchange(self, data: bytes, size: int) -> bytes:
        """Send, and read an answer of this size."""
        self.writer.write(data)
        return await asyncio.wait_for(self._reader.readexactly(size), WAIT_S)

    async def log_in(self, imei: str = test_teltonika.IMEI) -> None:
        assert await self.exchange(b"\x00\x0f" + imei.encode(), 1) == b"\x01"

    async def ended(self, within_s: float = WAIT_S) -> bool:
        """Whether the box ends the connection in time."""
        try:
            return await asyncio.wait_for(self._reader.read(1), within_s) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


@contextlib.asynccontextmanager
async def device(box: Collecting) -> AsyncIterator[Device]:
    reader, writer = await asyncio.open_connection(HOST, box.port)
    try:
        yield Device(reader, writer)
    finally:
        writer.close()


def speaking(protocol: str) -> Callable[[], Decoder]:
    return lambda: decoder_of(protocol, LIMITS, Options())


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_module, "SWEEP_S", 0.02)
    monkeypatch.setattr(time_limits, "GIVE_WAY_S", 0.2)


@pytest.mark.parametrize("protocol", ["teltonika", "auto"])
def test_a_newer_login_ends_the_older_connection(connect_shared: Connect, shard: Shard, protocol: str) -> None:
    logins = Logins()

    async def test() -> None:
        counted = metrics.REPLACED.one.value
        async with collecting(connect_shared, make_decoder=speaking(protocol), logins=logins) as box:
            async with device(box) as older, device(box) as newer, device(box) as other:
                await older.log_in()
                await other.log_in("999999999999999")
                assert not await older.ended(0.5)
                await newer.log_in()
                assert await older.ended()
                assert await newer.exchange(test_teltonika.ONE, 4) == ACK
                assert await other.exchange(test_teltonika.ONE, 4) == ACK
            while len(logins):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert metrics.REPLACED.one.value == counted + 1
        assert len(tail(shard, test_teltonika.IMEI)) == 1

    run(test)


def test_one_device_does_not_use_up_the_connections(connect_shared: Connect) -> None:
    """The device leaves each connection open, as after a loss of its network."""

    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            box = await stack.enter_async_context(
                collecting(connect_shared, make_decoder=speaking("teltonika"), logins=Logins(), max_connections=3)
            )
            for _ in range(8):
                newest = await stack.enter_async_context(device(box))
                await newest.log_in()
                while len(box.tcp._connections) > 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert await newest.exchange(test_teltonika.ONE, 4) == ACK

    run(test)


def test_what_the_older_connection_brought_is_stored_and_answered(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        make_decoder = speaking("teltonika")
        async with (
            collecting(connect_shared, make_decoder=make_decoder, logins=Logins()) as box,
            device(box) as older,
            device(box) as newer,
        ):
            await older.log_in()
            client.client_pause(PAUSE_MS, all=False)
            older.writer.write(test_teltonika.ONE)
            await newer.log_in()
            second = test_teltonika.packet(8, test_teltonika.record(at_ms=test_teltonika.AT_MS + 1_000))
            older.writer.write(second)  # it had left before the newer login
            await asyncio.sleep(0.5)
            client.client_unpause()
            assert await older.exchange(b"", 8) == ACK * 2
            assert await older.ended()
        assert len(tail(shard, test_teltonika.IMEI)) == 2

    run(test)


def test_without_logins_both_stay(connect_shared: Connect) -> None:
    async def test() -> None:
        async with (
            collecting(connect_shared, make_decoder=speaking("teltonika")) as box,
            device(box) as older,
            device(box) as newer,
        ):
            await older.log_in()
            await newer.log_in()
            assert not await older.ended(0.6)
            assert await older.exchange(test_teltonika.ONE, 4) == ACK

    run(test)


def test_a_gateway_of_many_devices_ends_nobody_and_is_not_ended(connect_shared: Connect, shard: Shard) -> None:
    """Its frames name one device after the other; two such connections share the devices."""
    names = [f"{number:012}" for number in range(1, 4)]

    async def test() -> None:
        async with (
            collecting(connect_shared, make_decoder=speaking("tk103"), logins=Logins()) as box,
            device(box) as one,
            device(box) as two,
        ):
            for _ in range(2):
                for name in names:
                    for gateway in (one, two):
                        expected = f"({name}AP05)".encode()
                        frame = test_tk103.message("BP05", device_id=name)
                        assert await gateway.exchange(frame, len(expected)) == expected
            assert not await one.ended(0.6)
            assert not await two.ended(0.1)
        assert [len(tail(shard, name)) for name in names] == [1, 1, 1]  # the same record each time

    run(test)


def test_a_device_may_log_in_again_over_its_connection(connect_shared: Connect) -> None:
    async def test() -> None:
        async with (
            collecting(connect_shared, make_decoder=speaking("gt06"), logins=Logins()) as box,
            device(box) as tracker,
        ):
            for _ in range(3):
                assert len(await tracker.exchange(test_decoder.LOGIN, 10)) == 10
            assert not await tracker.ended(0.5)

    run(test)


# Idle --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "begin", "answer_bytes"),
    [("teltonika", test_teltonika.HELLO, 1), ("auto", test_teltonika.HELLO, 1), ("auto", b"", 0), ("gt06", b"", 0)],
)
def test_a_silent_tracker_is_cut_sooner(
    connect_shared: Connect, protocol: str, begin: bytes, answer_bytes: int
) -> None:
    timeouts = Timeouts(idle_s=60, tracker_idle_s=0.5)

    async def test() -> None:
        async with (
            collecting(connect_shared, timeouts, make_decoder=speaking(protocol)) as box,
            device(box) as tracker,
        ):
            await tracker.exchange(begin, answer_bytes)
            assert not await tracker.ended(0.3)
            assert await tracker.ended(1.5)

    run(test)


@pytest.mark.parametrize("protocol", ["auto", "any", "json"])
def test_who_is_no_tracker_may_be_silent_for_longer(connect_shared: Connect, protocol: str) -> None:
    timeouts = Timeouts(idle_s=60, tracker_idle_s=0.3)

    async def test() -> None:
        async with collecting(connect_shared, timeouts, make_decoder=speaking(protocol)) as box, device(box) as sender:
            assert await sender.exchange(b'{"device_id":"d","altitude":1}\n', 4) == b'{"me'
            await sender.exchange(b"", 40)
            assert not await sender.ended(0.8)

    run(test)


def test_a_port_may_have_a_timeout_of_its_own() -> None:
    ours = Collector()
    assert timeouts_of(ours, 0)[1:3] == (86_400, 1_800)
    assert timeouts_of(ours, 7)[1:3] == (7, 7)
