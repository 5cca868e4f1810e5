"""MQTT with a real broker: messages are acknowledged when stored, and otherwise delivered again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from collector.framing.frame_decoder import Options
from collector.ingest.group_commit import Intake
from collector.mqtt.subscriber import Broker, Subscriber
from telemetry.codec.record_parser import Arrival
from telemetry.hot_store.operations.quarantine import read_quarantine
from telemetry.hot_store.shard import Shard
from telemetry.model.mqtt_topics import Filter
from tests.box import free_ports
from tests.collector.brokers import broker, needs_mosquitto, publish
from tests.collector.conftest import HOST, NOW_US, Connect, numbers, run, tail, taking

pytestmark = [needs_mosquitto, pytest.mark.slow]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (found,) = free_ports(1)
    with broker(tmp_path, found):
        yield found


@asynccontextmanager
async def subscribed(
    intake: Intake, port: int, connect: Connect, *topics: str, at_us: int = NOW_US
) -> AsyncIterator[None]:
    where = Broker(HOST, port, "whimbrel", [Filter.of(topic) for topic in topics or ("fleet/{device_id}",)])
    subscriber = Subscriber(where, intake, Options(), lambda: Arrival(at_us), connect)
    task = asyncio.create_task(subscriber.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def message(number: int) -> bytes:
    return json.dumps({"altitude": number}).encode()


async def session(intake: Intake, port: int, connect: Connect, *topics: str) -> None:
    """Make the broker save the subscription, so that it keeps later messages."""
    await publish(port)
    async with subscribed(intake, port, connect, *topics):
        await asyncio.sleep(1)


def test_messages_are_stored(connect_shared: Connect, shard: Shard, port: int) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            async with subscribed(intake, port, connect_shared):
                await publish(port, *map(message, range(200)))
                await until(lambda: len(tail(shard, "v1")) == 200)
            assert numbers(tail(shard, "v1")) == list(range(200))
            assert {one.record.transport for one in tail(shard, "v1")} == {"mqtt"}

    run(test)


def test_what_comes_while_nobody_hears_is_kept_by_the_broker(connect_shared: Connect, shard: Shard, port: int) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            await publish(port, message(1), message(2))
            async with subscribed(intake, port, connect_shared):
                await until(lambda: len(tail(shard, "v1")) == 2)

    run(test)


def test_what_is_not_stored_is_not_acknowledged(
    connect_shared: Connect, shard: Shard, port: int, client: redis.Redis
) -> None:
    """The program ends while the store can't take it: the broker brings it to the next."""

    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            await intake.offer([], 0)
            client.rename(shard.keys.store, "elsewhere")
            async with subscribed(intake, port, connect_shared):
                await publish(port, message(1))
                await asyncio.sleep(1)
            assert tail(shard, "v1") == []
        client.rename("elsewhere", shard.keys.store)
        async with taking(connect_shared) as intake, subscribed(intake, port, connect_shared):
            await until(lambda: tail(shard, "v1"))
            await asyncio.sleep(1)
        assert numbers(tail(shard, "v1")) == [1]

    run(test)


def test_what_can_t_be_stored_now_is_tried_until_it_can(
    connect_shared: Connect, shard: Shard, port: int, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            await intake.offer([], 0)
            client.rename(shard.keys.store, "elsewhere")
            async with subscribed(intake, port, connect_shared):
                await publish(port, message(1))
                await asyncio.sleep(1)
                client.rename("elsewhere", shard.keys.store)
                await until(lambda: tail(shard, "v1"))
            assert numbers(tail(shard, "v1")) == [1]

    run(test)


def test_what_can_never_be_taken_comes_once(connect_shared: Connect, shard: Shard, port: int) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            async with subscribed(intake, port, connect_shared):
                await publish(port, b"nonsense")
                await until(lambda: list(read_quarantine(shard)))
                await asyncio.sleep(0.5)
            async with subscribed(intake, port, connect_shared):
                await asyncio.sleep(1)
            assert [one.raw for one in read_quarantine(shard)] == [b"nonsense"]

    run(test)


def test_the_broker_may_go_and_come(connect_shared: Connect, shard: Shard, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    async def test(start: Callable[[], object]) -> None:
        async with taking(connect_shared) as intake, subscribed(intake, port, connect_shared):
            await asyncio.sleep(0.5)
            start()
            await publish(port)
            await asyncio.sleep(4)
            await publish(port, message(1))
            await until(lambda: tail(shard, "v1"))

    with contextlib.ExitStack() as stack:
        run(lambda: test(lambda: stack.enter_context(broker(tmp_path, port))))
