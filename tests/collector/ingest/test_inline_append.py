"""Small groups over the loop's own connection: the thread is not needed, and what it alone can tell it still tells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from collector.ingest import inline_append, watermarks
from collector.ingest import shard_writer as writer
from collector.ingest.group_commit import Intake
from telemetry.hot_store.operations.append import Limits
from telemetry.hot_store.response_errors import DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError
from tests.collector.conftest import Connect, numbers, run, sent, tail, taking

PAUSE_MS = 10_000
PATIENCE_S = 10


@pytest.fixture(autouse=True)
def few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the marks is the thread's: here only the first."""
    monkeypatch.setattr(watermarks, "MARKS_CHECK_S", 1_000)


async def until_connected(intake: Intake) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while any(writer._small is None for writer in intake._writers):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def held(client: redis.Redis) -> list[str]:
    """The ids of the clients whose call Redis holds back."""
    return [str(one["id"]) for one in client.client_list() if one["cmd"] == "fcall" and "b" in one["flags"]]


async def until_held(client: redis.Redis) -> str:
    """The id of the one."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := held(client)):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return found[0]


def without_thread(*_: Any, **_named: Any) -> None:
    raise AssertionError("the thread was asked")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the groups that go by the loop from now on."""
    found: list[int] = []
    begin = inline_append.SmallGroups.begin

    def counting(
        self: inline_append.SmallGroups, shard: Shard, group: Sequence[inline_append.Small]
    ) -> asyncio.Future[Any]:
        found.append(len(group))
        return begin(self, shard, group)

    monkeypatch.setattr(inline_append.SmallGroups, "begin", counting)
    return found


def test_small_groups_need_no_thread(connect_shared: Connect, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await until_connected(intake)
            with monkeypatch.context() as alone:
                alone.setattr("collector.ingest.shard_writer.append_batches", without_thread)
                for n in range(5):
                    await asyncio.gather(*(intake.submit([sent("ab"[m % 2], 10 * n + m)], 1) for m in range(4)))
                assert intake.newest_ms == tail(shard, "b")[-1].received_ms
            assert numbers(tail(shard, "a")) == [n * 10 + m for n in range(5) for m in (0, 2)]

    run(test)


@pytest.mark.parametrize(
    ("count", "named"), [(1, {"name": "key", "body_hash": b"hash"}), (inline_append.MOST_REQUESTS + 1, {})]
)
def test_the_thread_stores_all_others(
    connect_shared: Connect, shard: Shard, monkeypatch: pytest.MonkeyPatch, count: int, named: dict[str, Any]
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await until_connected(intake)
            by_loop = counted(monkeypatch)
            await asyncio.gather(*(intake.submit([sent("a", n)], 1, **named) for n in range(count)))
            assert not by_loop
            assert numbers(tail(shard, "a")) == list(range(count))

    run(test)


def test_behind_a_large_group_the_thread_goes_on_for_a_while(
    connect_shared: Connect, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an end need not wait for that while."""
    monkeypatch.setattr(writer, "KEEP_S", 1_000)

    async def test() -> None:
        async with asyncio.timeout(PATIENCE_S), taking(connect_shared) as intake:
            await until_connected(intake)
            by_loop = counted(monkeypatch)
            await asyncio.gather(*(intake.submit([sent("a", n)], 1) for n in range(200)))
            await intake.submit([sent("a", 200)], 1)
            await asyncio.sleep(0.01)
            await intake.submit([sent("a", 201)], 1)
            assert not by_loop
            assert numbers(tail(shard, "a")) == list(range(202))

    run(test)


def test_what_redis_refuses_as_a_whole_the_thread_takes_apart(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_devices=2)) as intake:
            await until_connected(intake)
            tried = [intake.submit([sent(device, n)], 1) for n, device in enumerate("abac")]
            assert [type(one) for one in await asyncio.gather(*tried, return_exceptions=True)] == [
                type(None),
                type(None),
                type(None),
                DevicesFull,
            ]
            await intake.submit([sent("b", 4)], 1)
            assert numbers(tail(shard, "a")) == [0, 2]
            assert numbers(tail(shard, "b")) == [1, 4]

    run(test)


def test_a_lost_connection_refuses_what_was_under_way_and_is_made_anew(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await until_connected(intake)
            await intake.submit([sent("a", 1)], 1)
            client.client_pause(PAUSE_MS, all=False)
            under_way = asyncio.ensure_future(intake.submit([sent("a", 2)], 1))
            client.client_kill_filter(_id=await until_held(client))
            with pytest.raises(BusyError, match="cannot reach Redis"):
                await under_way
            client.client_unpause()
            lost = intake._writers[0]._small
            await intake.submit([sent("a", 3)], 1)
            assert numbers(tail(shard, "a")) == [1, 3]
            async with asyncio.timeout(PATIENCE_S):
                while intake._writers[0]._small is lost:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            await intake.submit([sent("a", 4)], 1)
            assert numbers(tail(shard, "a")) == [1, 3, 4]

    run(test)


def test_one_call_is_under_way_at_a_time_whichever_way_it_goes(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await until_connected(intake)
            client.client_pause(PAUSE_MS, all=False)
            waits = [asyncio.ensure_future(intake.submit([sent("a", 1)], 1))]
            by_loop = await until_held(client)
            waits.append(asyncio.ensure_future(intake.submit([sent("a", 2)], 1, "key", b"hash")))
            await asyncio.sleep(0.02)
            assert held(client) == [by_loop]
            client.client_unpause()
            await waits[0]
            client.client_pause(PAUSE_MS, all=False)
            waits.append(asyncio.ensure_future(intake.submit([sent("a", 3)], 1)))
            await asyncio.sleep(0.02)
            assert len(held(client)) <= 1
            client.client_unpause()
            await asyncio.gather(*waits)
            assert numbers(tail(shard, "a")) == [1, 2, 3]

    run(test)
