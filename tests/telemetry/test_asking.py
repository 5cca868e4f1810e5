"""Short questions to Redis over connections of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis
import uvloop

from telemetry.asking import Asker
from telemetry.redis_client import connect, connect_async
from telemetry.settings import Settings
from tests.conftest import RedisServer, settings_of


def run(settings: Settings, test: Callable[[Asker], Coroutine[Any, Any, None]]) -> None:
    async def with_asker() -> None:
        async with connect_async(settings, timeout_s=0.5) as client:
            asker = Asker(client)
            try:
                await test(asker)
            finally:
                for connection in asker._free:
                    await connection.disconnect()

    uvloop.run(with_asker())


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """A Redis that has something to ask for."""
    with connect(settings) as client:
        client.hset("h", mapping={str(number): number for number in range(100)})
    return settings


def test_many_at_once_each_get_their_own_answer(filled: Settings) -> None:
    async def test(asker: Asker) -> None:
        for _ in range(3):
            found = await asyncio.gather(*(asker.ask("HGET", "h", str(number)) for number in range(100)))
            assert found == [b"%d" % number for number in range(100)]
        assert len(asker._free) == 100

    run(filled, test)


def test_one_after_another_share_a_connection(filled: Settings) -> None:
    async def test(asker: Asker) -> None:
        for _ in range(5):
            assert await asker.ask("HGET", "h", "7") == b"7"
            with pytest.raises(redis.ResponseError):
                await asker.ask("HGET", "h")
        assert len(asker._free) == 1

    run(filled, test)


def test_whoever_gives_up_leaves_no_answer_for_others(filled: Settings) -> None:
    async def test(asker: Asker) -> None:
        await asker.ask("HGET", "h", "1")
        waiting = asyncio.ensure_future(asker.ask("BLPOP", "nothing", "0.2"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asker.ask("HGET", "h", "2") == b"2"

    run(filled, test)


def test_a_server_that_was_started_anew_is_asked_again(own_redis: RedisServer, settings: Settings) -> None:
    mine = settings_of(own_redis.url, settings.data_dir)

    async def test(asker: Asker) -> None:
        await asyncio.gather(*(asker.ask("SET", "a", "1") for _ in range(3)))
        own_redis.kill()
        own_redis.start()
        assert await asker.ask("GET", "a") == b"1"
        own_redis.kill()
        with pytest.raises(redis.ConnectionError):
            await asker.ask("GET", "a")

    run(mine, test)


def test_a_server_that_is_silent_is_not_waited_for(filled: Settings) -> None:
    async def test(asker: Asker) -> None:
        with pytest.raises(redis.TimeoutError):
            await asker.ask("BLPOP", "nothing", "5")
        assert asker._free == []

    run(filled, test)
