"""Short questions to Redis: over redis-py's connections, and over one socket."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import redis
import uvloop

from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.hot_store.async_query import Asker, Asks, asker
from telemetry.hot_store.client import connect, connect_async
from telemetry.hot_store.direct_connection import DirectAsker
from tests.conftest import RedisServer, settings_of

TIMEOUT_S = 0.5

Made = Callable[[Settings], AbstractAsyncContextManager[Asks]]


@asynccontextmanager
async def plain(settings: Settings) -> AsyncIterator[Asks]:
    async with connect_async(settings, TIMEOUT_S) as client:
        found = Asker(client)
        yield found
        for connection in found._free:
            await connection.disconnect()


@asynccontextmanager
async def direct(settings: Settings) -> AsyncIterator[Asks]:
    with connect(settings, TIMEOUT_S) as client:
        found = DirectAsker(client)
        yield found
        found.close()


@pytest.fixture(params=(plain, direct))
def made(request: pytest.FixtureRequest) -> Made:
    return request.param  # type: ignore[no-any-return]


def run(made: Made, settings: Settings, test: Callable[[Asks], Coroutine[Any, Any, None]]) -> None:
    async def with_asker() -> None:
        async with made(settings) as found:
            await test(found)

    uvloop.run(with_asker())


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """A Redis that has something to ask for."""
    with connect(settings) as client:
        client.hset("h", mapping={str(number): number for number in range(100)})
    return settings


def connections(settings: Settings) -> int:
    with connect(settings) as client:
        return len(client.client_list()) - 1


def test_many_at_once_each_get_their_own_answer(made: Made, filled: Settings) -> None:
    async def test(asker: Asks) -> None:
        for _ in range(3):
            found = await asyncio.gather(*(asker.ask("HGET", "h", str(number)) for number in range(100)))
            assert found == [b"%d" % number for number in range(100)]

    run(made, filled, test)


def test_what_waits_behind_others_comes_in_their_order(made: Made, filled: Settings) -> None:
    """A server that is busy for longer than anybody waits on the spot, and more questions than a socket takes."""

    async def test(asker: Asks) -> None:
        slow = asyncio.ensure_future(asker.ask("BLPOP", "nothing", "0.05"))
        await asyncio.sleep(0)
        found = await asyncio.gather(*(asker.ask("ECHO", b"%d " % number * 20_000) for number in range(30)))
        assert [answer.split()[0] for answer in found] == [b"%d" % number for number in range(30)]
        assert {len(answer.split()) for answer in found} == {20_000}
        assert await slow is None

    run(made, filled, test)


def test_one_after_another_share_a_connection(made: Made, filled: Settings) -> None:
    before = connections(filled)

    async def test(asker: Asks) -> None:
        for _ in range(5):
            assert await asker.ask("HGET", "h", "7") == b"7"
            assert await asker.ask("HGET", "h", "no such") is None
            with pytest.raises(redis.ResponseError):
                await asker.ask("HGET", "h")
        assert connections(filled) == before + 1

    run(made, filled, test)


def test_whoever_gives_up_leaves_no_answer_for_others(made: Made, filled: Settings) -> None:
    async def test(asker: Asks) -> None:
        await asker.ask("HGET", "h", "1")
        waiting = asyncio.ensure_future(asker.ask("BLPOP", "nothing", "0.2"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asker.ask("HGET", "h", "2") == b"2"

    run(made, filled, test)


def test_a_server_that_was_started_anew_is_asked_again(made: Made, own_redis: RedisServer, settings: Settings) -> None:
    mine = settings_of(own_redis.url, settings.data_dir)

    async def test(asker: Asks) -> None:
        await asyncio.gather(*(asker.ask("SET", "a", "1") for _ in range(3)))
        own_redis.kill()
        own_redis.start()
        assert await asyncio.gather(*(asker.ask("GET", "a") for _ in range(3))) == [b"1"] * 3
        own_redis.kill()
        with pytest.raises(redis.ConnectionError):
            await asker.ask("GET", "a")
        own_redis.start()
        assert await asker.ask("GET", "a") == b"1"

    run(made, mine, test)


def test_who_waits_when_the_server_goes_hears_so(made: Made, own_redis: RedisServer, settings: Settings) -> None:
    async def test(asker: Asks) -> None:
        await asker.ask("PING")
        waiting = [asyncio.ensure_future(asker.ask("BLPOP", "nothing", "5")) for _ in range(2)]
        await asyncio.sleep(0.05)
        own_redis.kill()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(answer, redis.ConnectionError) for answer in found)

    run(made, settings_of(own_redis.url, settings.data_dir), test)


def test_a_server_that_is_silent_is_not_waited_for(made: Made, filled: Settings) -> None:
    async def test(asker: Asks) -> None:
        for _ in range(2):
            with pytest.raises(redis.TimeoutError):
                await asker.ask("BLPOP", "nothing", "5")
        assert await asker.ask("HGET", "h", "3") == b"3"

    run(made, filled, test)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are waited for on the spot for longer than Redis takes on a busy machine."""
    monkeypatch.setattr("telemetry.hot_store.direct_connection.SOON_MS", 100)


@pytest.mark.usefixtures("patient")
def test_a_response_comes_at_once_or_as_a_future(filled: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with connect(filled, TIMEOUT_S) as client:
            asker = DirectAsker(client)

            async def alone(*command: str) -> Any:
                await asyncio.sleep(0)
                return asker.begin(*command)

            assert await alone("HGET", "h", "1") is None  # there is no connection yet
            await asker.ask("PING")
            assert await alone("HGET", "h", "1") == b"1"
            assert await alone("HGET", "h") is None  # an error
            blocked = await alone("BLPOP", "nothing", "0.3")
            behind_it = await alone("HGET", "h", "2")
            assert (await blocked, await behind_it) == (None, b"2")
            await asyncio.sleep(0)
            assert await alone("HGET", "h", "4") == b"4"
            with pytest.raises(redis.TimeoutError):
                await (await alone("BLPOP", "nothing", "5"))
            assert await alone("HGET", "h", "5") is None  # the connection is closed
            assert await asker.ask("HGET", "h", "5") == b"5"
            asker.close()
        gc.collect()

    uvloop.run(test())
    assert not caplog.records


@pytest.mark.usefixtures("patient")
def test_concurrent_commands_are_not_polled_for(filled: Settings) -> None:
    async def test() -> None:
        with connect(filled, TIMEOUT_S) as client:
            asker = DirectAsker(client)
            await asker.ask("PING")
            await asyncio.sleep(0)
            first, *others = [asker.begin("HGET", "h", str(number)) for number in range(3)]
            assert [first, *await asyncio.gather(*others)] == [b"0", b"1", b"2"]
            assert all(isinstance(other, asyncio.Future) for other in others)
            asker.begin("HGET", "h", "3")
            asker.begin("HGET", "h", "3")
            await asyncio.sleep(0)
            assert await asker.begin("HGET", "h", "4") == b"4"  # there were several a moment ago
            await asyncio.sleep(0)
            assert asker.begin("HGET", "h", "5") == b"5"
            asker.close()

    uvloop.run(test())


def test_only_tls_is_asked_the_slower_way(filled: Settings) -> None:
    async def test() -> None:
        assert isinstance(asker(filled), DirectAsker)
        assert isinstance(asker(load(environ={"WHIMBREL__REDIS__URL": "rediss://localhost:1"})), Asker)

    uvloop.run(test())
