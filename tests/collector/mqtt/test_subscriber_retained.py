"""Repeated messages of a real broker: retained and unacknowledged ones are stored once; removed topics are
unsubscribed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import paho.mqtt.client as paho
import pytest
import redis

from telemetry.coordination import shared_state
from telemetry.hot_store.operations.quarantine import read_quarantine
from telemetry.hot_store.shard import Shard
from telemetry.observability import metrics
from tests.box import free_ports
from tests.collector.brokers import broker, needs_mosquitto, publish
from tests.collector.conftest import HOST, NOW_US, Connect, numbers, run, tail, taking
from tests.collector.mqtt.test_subscriber import message, session, subscribed, until

pytestmark = [needs_mosquitto, pytest.mark.slow]

SETTLED_S = 1.0
"""A broker on this machine delivers within milliseconds."""

OWNTRACKS = json.dumps({"_type": "location", "lat": 53.1, "lon": -2.1, "tst": NOW_US // 1_000_000}).encode()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (found,) = free_ports(1)
    with broker(tmp_path, found):
        yield found


def count(shard: Shard, device: str = "v1") -> int:
    return len(tail(shard, device))


@pytest.mark.parametrize("payload", [b'{"lat":53.1,"lon":-2.1}', b'{"lat":1,"lon":2,"timestamp":1700000000}'])
def test_one_from_before_the_first_subscription_is_stored_once(
    connect_shared: Connect, shard: Shard, port: int, payload: bytes
) -> None:
    repeated = metrics.RETAINED_REPEATED.of(f"{HOST}:{port}")

    async def test() -> None:
        await publish(port, payload, retain=True)
        async with taking(connect_shared) as intake:
            for number in range(3):
                async with subscribed(intake, port, connect_shared, at_us=NOW_US + number):
                    await until(lambda: count(shard) == 1)
                    await asyncio.sleep(SETTLED_S)
                assert count(shard) == 1
                assert repeated.value == number

    run(test)


def test_one_that_came_when_it_was_published_is_not_stored_at_the_next_connection(
    connect_shared: Connect, shard: Shard, port: int
) -> None:
    async def test() -> None:
        topics, topic = ("owntracks/+/+",), "owntracks/ann/phone"
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared, *topics)
            async with subscribed(intake, port, connect_shared, *topics):
                await publish(port, OWNTRACKS, topic=topic, retain=True)
                await publish(port, b'{"_type":"lwt","tst":1}', topic=topic)
                await until(lambda: count(shard, topic) == 1)
                await asyncio.sleep(SETTLED_S)
            async with subscribed(intake, port, connect_shared, *topics):
                await asyncio.sleep(SETTLED_S)
            assert count(shard, topic) == 1

    run(test)


def test_a_burst_of_retained_messages_is_stored_once_each(connect_shared: Connect, shard: Shard, port: int) -> None:
    """Of those that wait in the session, the last comes a second time at once, as the retained one."""

    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            await publish(port, *map(message, range(50)), retain=True)
            for _ in range(2):
                async with subscribed(intake, port, connect_shared):
                    await until(lambda: count(shard) >= 50)
                    await asyncio.sleep(SETTLED_S)
            assert sorted(numbers(tail(shard, "v1"))) == list(range(50))

    run(test)


def test_a_new_retained_message_is_stored(connect_shared: Connect, shard: Shard, port: int) -> None:
    """Published while the box had no session at the broker."""

    async def test() -> None:
        await publish(port, message(1), retain=True)
        async with taking(connect_shared) as intake:
            async with subscribed(intake, port, connect_shared):
                await until(lambda: count(shard) == 1)
                await asyncio.sleep(SETTLED_S)
            async with aiomqtt.Client(HOST, port, identifier="whimbrel", clean_session=True):
                pass
            await publish(port, message(2), retain=True)
            async with subscribed(intake, port, connect_shared):
                await until(lambda: count(shard) == 2)
            assert numbers(tail(shard, "v1")) == [1, 2]

    run(test)


def test_messages_without_the_flag_between_leave_the_retained_one_noted(
    connect_shared: Connect, shard: Shard, port: int
) -> None:
    async def test() -> None:
        await publish(port, message(1), retain=True)
        async with taking(connect_shared) as intake:
            async with subscribed(intake, port, connect_shared):
                await until(lambda: count(shard) == 1)
                await publish(port, message(2))
                await until(lambda: count(shard) == 2)
                await asyncio.sleep(SETTLED_S)  # noted and acknowledged, too
            async with subscribed(intake, port, connect_shared):
                await asyncio.sleep(SETTLED_S)
            assert numbers(tail(shard, "v1")) == [1, 2]

    run(test)


@pytest.mark.parametrize("is_timed", [False, True])
def test_what_the_broker_heard_no_acknowledgement_of_is_stored_once(
    connect_shared: Connect, shard: Shard, port: int, monkeypatch: pytest.MonkeyPatch, is_timed: bool
) -> None:
    """The broker delivers unacknowledged messages again, with the flag. Equal messages without the flag are new."""
    at = ',"timestamp":1700000000' if is_timed else ""
    payloads = [f'{{"lat":{number},"lon":2{at}}}'.encode() for number in (1, 2, 3)]
    before = metrics.RESENT.one.value

    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            with monkeypatch.context() as lost:
                lost.setattr(paho.Client, "ack", lambda *_: None)
                async with subscribed(intake, port, connect_shared):
                    await publish(port, *payloads)
                    await until(lambda: count(shard) == 3)
                    await asyncio.sleep(SETTLED_S)
            async with subscribed(intake, port, connect_shared, at_us=NOW_US + 1):
                await until(lambda: metrics.RESENT.one.value == before + 3)
                await asyncio.sleep(SETTLED_S)
                assert count(shard) == 3
                await publish(port, *payloads)
                await until(lambda: count(shard) == 6 or is_timed)
                await asyncio.sleep(SETTLED_S)
            async with subscribed(intake, port, connect_shared, at_us=NOW_US + 2):
                await asyncio.sleep(SETTLED_S)
            assert count(shard) == (3 if is_timed else 6)

    run(test)


def test_an_equal_message_that_was_never_heard_is_stored(
    connect_shared: Connect, shard: Shard, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker sent it, the connection broke before it came, and it comes with the flag, under an id of its own."""

    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            async with subscribed(intake, port, connect_shared):
                await publish(port, message(1))
                await until(lambda: count(shard) == 1)
                await asyncio.sleep(SETTLED_S)
            with monkeypatch.context() as lost:
                lost.setattr(aiomqtt.Client, "_on_message", lambda *_: None)
                async with subscribed(intake, port, connect_shared):
                    await publish(port, message(1))
                    await asyncio.sleep(SETTLED_S)
            assert count(shard) == 1
            async with subscribed(intake, port, connect_shared):
                await until(lambda: count(shard) == 2)

    run(test)


def test_equal_messages_without_the_flag_are_all_stored(connect_shared: Connect, shard: Shard, port: int) -> None:
    """A parked vehicle sends the same message each minute, without a time."""

    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            async with subscribed(intake, port, connect_shared):
                await publish(port, *[message(1)] * 3)
                await until(lambda: count(shard) == 3)

    run(test)


def test_one_that_can_never_be_taken_is_set_aside_once(connect_shared: Connect, shard: Shard, port: int) -> None:
    async def test() -> None:
        await publish(port, b"nonsense", retain=True)
        async with taking(connect_shared) as intake:
            for _ in range(2):
                async with subscribed(intake, port, connect_shared):
                    await asyncio.sleep(SETTLED_S)
        assert [one.raw for one in read_quarantine(shard)] == [b"nonsense"]

    run(test)


def test_a_broker_that_starts_again_brings_it_again(connect_shared: Connect, shard: Shard, tmp_path: Path) -> None:
    """Over the same subscriber, with the session kept on the broker's disk and with it lost."""
    (port,) = free_ports(1)
    (tmp_path / "state").mkdir(mode=0o777)
    (tmp_path / "state").chmod(0o777)
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(0o755)
    lines = ("allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/state/")

    async def test() -> None:
        async with taking(connect_shared) as intake:
            with broker(tmp_path, port, *lines):
                await publish(port, message(1), retain=True)
                await asyncio.sleep(SETTLED_S)
            async with subscribed(intake, port, connect_shared):
                for _ in range(2):
                    with broker(tmp_path, port, *lines):
                        await publish(port, message(5), topic="fleet/other")
                        await until(lambda: count(shard) == 1)
                        await asyncio.sleep(4)
            assert numbers(tail(shard, "v1")) == [1]

    run(test)


def test_a_store_that_cannot_be_asked_is_asked_until_it_can(
    connect_shared: Connect, shard: Shard, port: int, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared)
            client.set(shared_state.MQTT_STORED, "no hash")
            async with subscribed(intake, port, connect_shared):
                await publish(port, message(1), retain=True)
                await until(lambda: count(shard) == 1)
                await asyncio.sleep(0.5)
                client.delete(shared_state.MQTT_STORED)
                await until(lambda: client.hlen(shared_state.MQTT_STORED) == 2)  # by topic and by packet id
                await asyncio.sleep(SETTLED_S)  # for the acknowledgement, without which the broker sends it again
            async with subscribed(intake, port, connect_shared):
                await asyncio.sleep(SETTLED_S)
            assert count(shard) == 1

    run(test)


# Subscriptions ---------------------------------------------------------------------------------------


async def delivered(port: int) -> list[str]:
    """Topics of the messages that the broker has for the box's session."""
    topics = []
    async with aiomqtt.Client(HOST, port, identifier="whimbrel", clean_session=False) as client:
        try:
            async with asyncio.timeout(SETTLED_S):
                async for one in client.messages:
                    topics.append(str(one.topic))
        except TimeoutError:
            pass
    return topics


def test_a_topic_that_the_settings_no_longer_name_is_unsubscribed(
    connect_shared: Connect, shard: Shard, port: int
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared, "fleet/{device_id}", "old/{device_id}")
            await session(intake, port, connect_shared, "fleet/{device_id}")
        await publish(port, message(1), topic="old/v1")
        await publish(port, message(2), topic="fleet/v1")
        assert await delivered(port) == ["fleet/v1"]
        assert count(shard) == 0

    run(test)


def test_what_still_comes_of_such_a_topic_is_not_stored(
    connect_shared: Connect, shard: Shard, port: int, client: redis.Redis
) -> None:
    """Messages that waited in the session, or a subscription that was not saved."""

    async def test() -> None:
        async with taking(connect_shared) as intake:
            await session(intake, port, connect_shared, "fleet/{device_id}", "old/{device_id}")
            client.delete(shared_state.MQTT)
            own = {"device_id": "v1", "altitude": 7}
            await publish(port, message(1), json.dumps(own).encode(), b"nonsense", topic="old/v1")
            async with subscribed(intake, port, connect_shared):
                await asyncio.sleep(SETTLED_S)
                await publish(port, message(2))
                await until(lambda: count(shard) == 1)
                await asyncio.sleep(SETTLED_S)  # for the acknowledgement, without which the broker keeps the message
            assert numbers(tail(shard, "v1")) == [2]
            assert list(read_quarantine(shard)) == []
        assert await delivered(port) == []

    run(test)
