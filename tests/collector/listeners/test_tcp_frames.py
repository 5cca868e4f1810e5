"""Frames and bare msgpack on real sockets with a real Redis: the same port, replies in order, each batch once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis

from collector.ingest import batch_order
from collector.protocols.msgpack_frames import BUSY, DENIED, ENDED, MALFORMED, REFUSED, REPEATED, STORED
from telemetry.archive.table import Archive
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Shard
from telemetry.startup.store_setup import set_up
from tests.collector.conftest import HOST, RECEIVED, Collecting, Connect, collecting, line, numbers, run, tail
from tests.conftest import RedisServer, settings_of

WAIT_S = 10
PAUSE_MS = 20_000
DEVICES_PAGE = Path(__file__).parents[3] / "docs" / "devices.md"


def record(device: str = "d", number: int = 0) -> dict[str, object]:
    return {"device_id": device, "altitude": number}


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def frame(number: int, *records: object, sender: str | None = "s") -> bytes:
    return framed(msgpack.packb([1, sender, number, list(records)]))


class Sender:
    """A device that sends frames, or bare msgpack."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._unpacker = msgpack.Unpacker()

    async def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))
        await self.writer.drain()

    async def answer(self) -> Any:
        """The next frame."""
        head = await asyncio.wait_for(self.reader.readexactly(4), WAIT_S)
        return msgpack.unpackb(await asyncio.wait_for(self.reader.readexactly(int.from_bytes(head, "big")), WAIT_S))

    async def statuses(self, count: int) -> list[tuple[int, int]]:
        """Batch number and status of the next frames."""
        answers = [await self.answer() for _ in range(count)]
        return [(number, status) for number, status, _, _ in answers]

    async def bare_answer(self) -> Any:
        """The next map."""
        while True:
            for found in self._unpacker:
                return found
            self._unpacker.feed(await asyncio.wait_for(self.reader.read(1_000), WAIT_S))

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), WAIT_S)


@contextlib.asynccontextmanager
async def sending(box: Collecting) -> AsyncIterator[Sender]:
    reader, writer = await asyncio.open_connection(HOST, box.port)
    try:
        yield Sender(reader, writer)
    finally:
        writer.close()


# Frames ----------------------------------------------------------------------------------------------


def test_a_batch_is_stored_before_its_answer(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            for number in (1, 2):
                await sender.send(frame(number, record("d", number), record("e", number)))
                assert await sender.answer() == [number, STORED, 2, None]
                assert len(numbers(tail(shard, "d"))) == number
            [one, _] = tail(shard, "d")
            assert (one.record.transport, one.record.source) == ("tcp", "msgpack")

    run(test)


def test_many_are_in_flight_and_answered_in_order(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            client.client_pause(PAUSE_MS, all=False)
            bad = frame(500, record(), {"device_id": "d", "lat": "north"})
            await sender.send(*(frame(n, record("d", n)) for n in range(1, 500)), bad, framed(b"\xc1"), frame(501))
            await asyncio.sleep(0.05)
            assert shard.unsaved() == 0
            client.client_unpause()
            assert await sender.statuses(499) == [(n, STORED) for n in range(1, 500)]
            reason = {"index": 1, "field": "latitude", "reason": "must be a finite number"}
            assert await sender.answer() == [500, REFUSED, 0, reason]
            assert await sender.statuses(2) == [(None, MALFORMED), (501, STORED)]
            assert numbers(tail(shard, "d")) == list(range(1, 500))

    run(test)


def test_a_batch_sent_again_is_stored_once(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box:
            for _ in range(2):
                async with sending(box) as sender:
                    await sender.send(*(frame(n, record("d", n)) for n in (1, 2, 2, 4, 3)))
                    found = await sender.statuses(5)
            assert found == [(n, REPEATED) for n in (1, 2, 2, 4, 3)]
            assert numbers(tail(shard, "d")) == [1, 2, 4]

    run(test)


def test_who_has_no_name_is_stored_each_time(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            await sender.send(*(frame(1, record("d", 7), sender=None) for _ in range(3)))
            assert await sender.statuses(3) == [(1, STORED)] * 3
            assert numbers(tail(shard, "d")) == [7] * 3

    run(test)


def test_two_connections_of_one_sender_at_once(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    """Both send the same batches, as after a connection that only seemed to be lost."""

    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as first, sending(box) as second:
            for start in range(1, 101, 10):
                client.client_pause(PAUSE_MS, all=False)
                data = [frame(n, record("d", n)) for n in range(start, start + 10)]
                await asyncio.gather(first.send(*data), second.send(*data))
                await asyncio.sleep(0.01)
                client.client_unpause()
                found = sorted([*await first.statuses(10), *await second.statuses(10)])
                expected = [(n, status) for n in range(start, start + 10) for status in (STORED, REPEATED)]
                assert found == expected
            assert numbers(tail(shard, "d")) == list(range(1, 101))

    run(test)


def test_frames_in_any_number_of_pieces(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            for byte in frame(1, record("d", 1)) + frame(2, record("d", 2)):
                await sender.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await sender.statuses(2) == [(1, STORED), (2, STORED)]

    run(test)


@pytest.mark.parametrize("behind", [b"", b"x" * 100_000])
def test_a_frame_too_large_ends_this_connection_with_an_answer(
    connect_shared: Connect, shard: Shard, behind: bytes
) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender, sending(box) as other:
            await sender.send(frame(1, record("d", 1)), (2**20 + 1).to_bytes(4, "big"), behind)
            assert await sender.answer() == [1, STORED, 1, None]
            reason = "a frame of 1048577 bytes: it may have 1 to 1048576"
            assert await sender.answer() == [None, ENDED, 0, {"reason": reason}]
            assert await sender.rest() == b""
            await other.send(frame(2, record("d", 2)))
            assert await other.answer() == [2, STORED, 1, None]

    run(test)


def test_while_redis_is_away_none_overtakes(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)

    async def test() -> None:
        with connect(settings) as client:
            set_up(client, Archive(settings.archive_dir), 1)
        async with collecting(lambda: connect(settings)) as box, sending(box) as sender:
            await sender.send(frame(1, record("d", 1)))
            assert await sender.statuses(1) == [(1, STORED)]
            own_redis.kill()
            await sender.send(frame(2, record("d", 2)))
            number, status, accepted, detail = await sender.answer()
            assert (number, status, accepted) == (2, BUSY, 0)
            assert "cannot reach Redis" in detail["reason"]
            own_redis.start()
            await sender.send(frame(3, record("d", 3)), frame(2, record("d", 2)), frame(3, record("d", 3)))
            assert await sender.statuses(3) == [(3, BUSY), (2, STORED), (3, STORED)]
        with connect(settings) as client:
            [shard] = set_up(client, Archive(settings.archive_dir), 1)
            assert numbers(tail(shard, "d")) == [1, 2, 3]

    run(test)


def test_a_gateway_with_too_many_failures_has_to_begin_anew(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_order, "MAX_FAILED_SENDERS", 5)
    settings = settings_of(own_redis.url, tmp_path)

    async def test() -> None:
        with connect(settings) as client:
            set_up(client, Archive(settings.archive_dir), 1)
        async with collecting(lambda: connect(settings)) as box, sending(box) as sender:
            own_redis.kill()
            await sender.send(*(frame(1, record(), sender=f"s{n}") for n in range(6)))
            assert await sender.statuses(6) == [(1, BUSY)] * 6
            assert await sender.rest() == b""
            own_redis.start()
            async with sending(box) as again:
                await again.send(*(frame(1, record(), sender=f"s{n}") for n in range(6)))
                assert await again.statuses(6) == [(1, STORED)] * 6

    run(test)


# Bare msgpack ----------------------------------------------------------------------------------------


def test_bare_records_are_answered_as_lines_are(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as device, sending(box) as other:
            await device.send(msgpack.packb(record("d", 1)), msgpack.packb([record("d", 2), record("d", 3)]))
            await device.send(msgpack.packb({"device_id": ""}), msgpack.packb(record("d", 4)))
            await other.send(b'{"device_id":"d","altitude":5}\n{"device_id":""}\n')
            assert await device.bare_answer() == json.loads(await other.reader.readline())
            assert await device.bare_answer() == {"message": "Data received", "accepted": 2}
            assert await device.bare_answer() == json.loads(await other.reader.readline())
            assert await device.bare_answer() == {"message": "Data received", "accepted": 1}
            assert sorted(numbers(tail(shard, "d"))) == [1, 2, 3, 4, 5]
            await device.send(b"\xc1")
            assert (await device.bare_answer())["retry"] is False
            assert await device.rest() == b""

    run(test)


def test_each_connection_of_the_port_speaks_its_own(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, contextlib.AsyncExitStack() as stack:
            senders = [await stack.enter_async_context(sending(box)) for _ in range(30)]
            for _ in range(3):
                for number, sender in enumerate(senders):
                    texts = line("d"), frame(number + 1, record(), sender=None), msgpack.packb(record())
                    await sender.send(texts[number % 3])
                for number, sender in enumerate(senders):
                    if number % 3 == 0:
                        assert await sender.reader.readline() == RECEIVED
                    elif number % 3 == 1:
                        assert await sender.answer() == [number + 1, STORED, 1, None]
                    else:
                        assert await sender.bare_answer() == {"message": "Data received", "accepted": 1}
            assert shard.unsaved() == 90

    run(test)


@pytest.mark.parametrize(
    "data",
    [b"\0" + b"\xff" * 50_000, frame(1, {}) * 5_000, framed(b"\x91" * 900) * 1_000, b"\xc1" * 50_000, b"\x91" * 50_000],
    ids=["length", "bad records", "deep", "no msgpack", "deep and bare"],
)
def test_a_bad_sender_costs_only_itself(connect_shared: Connect, shard: Shard, data: bytes) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as good, sending(box) as bad:
            await good.send(frame(1, record("d", 1))[:7])
            with contextlib.suppress(ConnectionError):
                await bad.send(data)
            await good.send(frame(1, record("d", 1))[7:])
            assert await good.answer() == [1, STORED, 1, None]
            bad.writer.transport.abort()

    run(test)
    assert numbers(tail(shard, "d")) == [1]


# Connections -----------------------------------------------------------------------------------------


def test_more_connections_of_one_address_than_may_be_are_closed(
    connect_shared: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with collecting(connect_shared, max_per_address=2) as box, sending(box) as first:
            await first.send(line("d"))
            assert await first.reader.readline() == RECEIVED
            async with sending(box) as second:
                await second.send(line("d"))
                assert await second.reader.readline() == RECEIVED
                for _ in range(5):
                    async with sending(box) as third:
                        assert await third.rest() == b""
            while len(box.tcp._connections) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            async with sending(box) as fourth:
                await fourth.send(line("d"))
                assert await fourth.reader.readline() == RECEIVED

    with caplog.at_level(logging.WARNING):
        run(test)
    [line_of_log] = [one.getMessage() for one in caplog.records]
    assert line_of_log.startswith(f"closed 1 connections at once: 2 connections are open already from {HOST}")


# The page --------------------------------------------------------------------------------------------


def test_the_client_of_the_page_runs(connect_shared: Connect, shard: Shard) -> None:
    page = DEVICES_PAGE.read_text(encoding="utf-8")
    [client] = [code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "msgpack" in code]
    assert len(client.splitlines()) <= 14

    async def test() -> None:
        async with collecting(connect_shared) as box:
            code = client.replace("9999", str(box.port))
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
            )
            assert done.stderr == ""
            assert done.stdout.splitlines() == ["[1, 0, 1, None]", "[2, 0, 1, None]"]
            assert shard.unsaved() == 2

    run(test)


def test_every_status_is_on_the_page() -> None:
    page = DEVICES_PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d) \|", page, re.M) == [
        str(n) for n in (STORED, REPEATED, REFUSED, BUSY, MALFORMED, ENDED, DENIED)
    ]
