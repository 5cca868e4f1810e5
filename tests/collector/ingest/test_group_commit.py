"""Group commit: waiting requests share a call, an invalid one is rejected alone, and none waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from collector.ingest import inline_append, shard_writer, watermarks
from collector.ingest.group_commit import Intake
from collector.ingest.watermarks import Watermarks, memory_percent
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.response_errors import DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, KeyReusedError
from telemetry.model.record import Sent
from telemetry.startup.store_setup import set_up
from telemetry.system.disk_space import Room
from tests.collector.conftest import Connect, calls, numbers, run, sent, tail, taking
from tests.conftest import RedisServer, settings_of
from tests.small_disk import SmallDisk

PAUSE_MS = 10_000
MIB = 2**20


@pytest.fixture(params=["by the loop", "by the thread"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups go whichever way is theirs, or all by the thread."""
    if request.param == "by the thread":
        monkeypatch.setattr(inline_append, "MOST_REQUESTS", 0)


async def outcomes(*waits: asyncio.Future[bool] | asyncio.Task[None]) -> list[type[BaseException] | None]:
    """What becomes of each: None if it was stored."""
    results = await asyncio.gather(*waits, return_exceptions=True)
    return [type(result) if isinstance(result, BaseException) else None for result in results]


def test_a_record_is_stored_when_submit_returns(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit([sent("a", 1), sent("b", 2), sent("a", 3)], 100)
            assert numbers(tail(shard, "a")) == [1, 3]
            assert numbers(tail(shard, "b")) == [2]
            assert intake.newest_ms == tail(shard, "b")[0].received_ms

    run(test)


def test_how_far_the_boxs_clock_was_is_known_before_the_first_record(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    """Else a clock that was set back would be believed, and its devices refused as from the future."""
    append_batches(shard, [Batch(pack([sent()]))], Limits())
    client.hset(shard.keys.store, "newest_ms", 2_000_000_000_000)

    async def test() -> None:
        async with taking(connect_shared) as intake, asyncio.timeout(PAUSE_MS / 1_000):
            while intake.newest_ms != 2_000_000_000_000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(test)


def test_nothing_is_stored_of_nothing(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            before = calls(client)
            await intake.submit([], 2)
            await intake.offer([], 2)
            assert calls(client) == before
            assert intake.has_room

    run(test)


@pytest.mark.usefixtures("way")
def test_those_who_wait_at_the_same_time_share_a_call(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit([sent()], 1)
            before = calls(client)
            client.client_pause(PAUSE_MS, all=False)
            waits = [asyncio.ensure_future(intake.submit([sent("d", n)], 1)) for n in range(500)]
            await asyncio.sleep(0.05)
            assert not any(wait.done() for wait in waits)
            client.client_unpause()
            assert await outcomes(*waits) == [None] * 500
            assert calls(client) - before <= 2, "while the first was under way the others formed a group"
            assert numbers(tail(shard, "d")) == [0, *range(500)]

    run(test)


def test_a_group_is_bounded(
    connect_shared: Connect, shard: Shard, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "GROUP_ENTRIES", 20)
    monkeypatch.setattr(shard_writer, "GROUP_RECORDS", 30)
    monkeypatch.setattr(shard_writer, "GROUP_BYTES", 1_000)

    async def test() -> None:
        async with taking(connect_shared) as intake:
            for records, cost, groups in ((1, 1, 5), (3, 1, 10), (1, 500, 50), (35, 1, 100)):
                client.client_pause(PAUSE_MS, all=False)
                first = asyncio.ensure_future(intake.submit([sent()], 1))
                await asyncio.sleep(0.02)
                before = calls(client)
                waits = [asyncio.ensure_future(intake.submit([sent()] * records, cost)) for _ in range(100)]
                await asyncio.sleep(0.02)
                client.client_unpause()
                assert await outcomes(first, *waits) == [None] * 101
                assert calls(client) - before - 1 == groups

    run(test)


# Names -----------------------------------------------------------------------------------------------


def test_a_named_request_is_stored_once(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit([sent("a", 1)], 1, "key", b"hash")
            await intake.submit([sent("a", 1)], 1, "key", b"hash")
            again = [asyncio.ensure_future(intake.submit([sent("a", 2)], 1, "other", b"hash")) for _ in range(5)]
            assert await outcomes(*again) == [None] * 5
            assert numbers(tail(shard, "a")) == [1, 2]

    run(test)


def test_a_name_with_another_body_is_refused_and_costs_no_one_else(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit([sent("a", 1)], 1, "key", b"hash")
            client.client_pause(PAUSE_MS, all=False)
            waits = [
                asyncio.ensure_future(intake.submit([sent("a", 2)], 1)),
                asyncio.ensure_future(intake.submit([sent("a", 3)], 1, "key", b"other")),
                asyncio.ensure_future(intake.submit([sent("a", 4)], 1, "key", b"hash")),
                asyncio.ensure_future(intake.submit([sent("a", 5)], 1, "new", b"hash")),
                asyncio.ensure_future(intake.submit([sent("a", 6)], 1)),
            ]
            await asyncio.sleep(0.02)
            client.client_unpause()
            assert await outcomes(*waits) == [None, KeyReusedError, None, None, None]
            assert sorted(numbers(tail(shard, "a"))) == [1, 2, 5, 6]

    run(test)


def test_a_name_is_remembered_for_a_request_without_records_too(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit([], 2, "key", b"hash")
            await intake.submit([], 2, "key", b"hash")
            with pytest.raises(KeyReusedError):
                await intake.submit([sent()], 1, "key", b"other")

    run(test)


def test_too_many_names_are_told_to_wait(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_names=1)) as intake:
            await intake.submit([sent()], 1, "one", b"hash")
            with pytest.raises(BusyError, match="Idempotency-Keys") as caught:
                await intake.submit([sent()], 1, "two", b"hash")
            assert caught.value.retry_after_s == 30
            await intake.submit([sent()], 1, "one", b"hash")
            await intake.submit([sent()], 1)

    run(test)


# Room ------------------------------------------------------------------------------------------------


def test_what_waits_is_bounded(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with taking(connect_shared, max_pending_bytes=100) as intake:
            client.client_pause(PAUSE_MS, all=False)
            first = asyncio.ensure_future(intake.submit([sent()], 60))
            await asyncio.sleep(0)
            assert intake.has_room
            second = intake.offer([sent()], 60)
            assert not intake.has_room
            with pytest.raises(BusyError, match="waiting") as caught:
                await intake.submit([sent()], 1)
            assert caught.value.retry_after_s == 1
            room = asyncio.ensure_future(intake.room())
            await asyncio.sleep(0.02)
            assert not room.done()
            client.client_unpause()
            await asyncio.wait_for(room, 5)
            assert await outcomes(first, second, asyncio.ensure_future(intake.submit([sent()], 100))) == [None] * 3

    run(test)


def fill_to(client: redis.Redis, percent: float) -> None:
    """Set Redis's limit so that it uses about so much of it."""
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 100 / percent))


@pytest.mark.usefixtures("way")
def test_above_its_memory_mark_all_is_refused_until_it_is_drained_below_the_other(
    connect_shared: Connect, shard: Shard, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermarks, "MARKS_CHECK_S", 0.0)
    client.set("ballast", bytes(4 * 2**20))

    async def test() -> None:
        async with taking(connect_shared, marks=Watermarks(80, 70)) as intake:
            await intake.submit([sent()], 1)
            fill_to(client, 75)
            await intake.submit([sent()], 1)
            for percent in (85, 75):
                fill_to(client, percent)
                with pytest.raises(BusyError, match="memory mark") as caught:
                    await intake.submit([sent()], 1)
                assert caught.value.retry_after_s == 5
            fill_to(client, 65)
            await intake.submit([sent()], 1)
            assert shard.unsaved() == 3

    try:
        run(test)
    finally:
        client.config_set("maxmemory", 0)
        client.delete("ballast")


def test_while_a_disk_has_too_little_room_all_is_refused(
    connect_shared: Connect, shard: Shard, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermarks, "MARKS_CHECK_S", 0.0)
    room = Room((disk.path / "not there yet",), 16 * MIB)

    async def test() -> None:
        async with taking(connect_shared, marks=Watermarks(room=room)) as intake:
            await intake.submit([sent()], 1)
            disk.leave(18 * MIB)
            await intake.submit([sent()], 1)
            for free in (14, 18):
                disk.leave(free * MIB)
                with pytest.raises(BusyError, match="disk") as caught:
                    await intake.submit([sent()], 1)
                assert caught.value.retry_after_s == 30
            disk.leave(22 * MIB)
            await intake.submit([sent()], 1)
            assert shard.unsaved() == 3

    run(test)


def test_how_full_redis_is(client: redis.Redis) -> None:
    assert memory_percent(client) == 0
    try:
        fill_to(client, 50)
        assert memory_percent(client) == pytest.approx(50, abs=5)
    finally:
        client.config_set("maxmemory", 0)


@pytest.mark.usefixtures("way")
def test_at_the_memory_limit_itself_the_refusal_is_the_same(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared, marks=Watermarks(100_000_000_000, 1)) as intake:
            client.config_set("maxmemory", 1)
            with pytest.raises(BusyError, match="memory limit"):
                await intake.submit([sent()], 1)
            client.config_set("maxmemory", 0)
            await intake.submit([sent()], 1)

    try:
        run(test)
    finally:
        client.config_set("maxmemory", 0)


@pytest.mark.usefixtures("way")
def test_only_the_request_with_a_device_too_many_is_refused(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_devices=2)) as intake:
            await intake.submit([sent("a"), sent("b")], 1)
            before = calls(client)
            client.client_pause(PAUSE_MS, all=False)
            requests = [[sent("ab"[n % 2], n)] for n in range(64)]
            requests[40] = [sent("a", 1_000), sent("c", 1_000)]
            waits = [asyncio.ensure_future(intake.submit(request, 1)) for request in requests]
            await asyncio.sleep(0.02)
            client.client_unpause()
            assert await outcomes(*waits) == [None if n != 40 else DevicesFull for n in range(64)]
            assert numbers(tail(shard, "a")) == [0, *(n for n in range(0, 64, 2) if n != 40)]
            assert tail(shard, "c") == []
            assert calls(client) - before < 20, "the guilty one is not searched for one by one"

    run(test)


# Several shards --------------------------------------------------------------------------------------

SPREAD = [f"device-{number}" for number in range(12)]


@pytest.fixture
def three(client: redis.Redis, archive: Archive) -> list[Shard]:
    """The shards of a store that has three."""
    assert {shard_of(device, 3) for device in SPREAD} == {0, 1, 2}
    return set_up(client, archive, 3)


def held(shards: Sequence[Shard]) -> dict[str, list[int]]:
    return {device: numbers(tail(shards[shard_of(device, 3)], device)) for device in SPREAD}


REQUEST = [sent(device, number) for number, device in enumerate(SPREAD)]
ONCE = {device: [number] for number, device in enumerate(SPREAD)}


def test_records_go_to_the_shards_of_their_devices(settings: Settings, three: list[Shard]) -> None:
    async def test() -> None:
        async with taking(lambda: connect(settings), shards=3) as intake:
            await intake.submit(REQUEST[:6], 1)
            await intake.offer(REQUEST[6:], 1)
            assert held(three) == ONCE

    run(test)


def test_a_named_request_over_shards_is_stored_once(settings: Settings, three: list[Shard]) -> None:
    async def test() -> None:
        async with taking(lambda: connect(settings), shards=3) as intake:
            for _ in range(3):
                await intake.submit(REQUEST, 1, "key", b"hash")
            for records in (REQUEST, REQUEST[:1], REQUEST[-1:]):
                with pytest.raises(KeyReusedError):
                    await intake.submit(records, 1, "key", b"other")
            assert held(three) == ONCE
            assert intake.has_room

    run(test)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_the_retry_of_a_named_request_stores_what_a_failed_shard_did_not(
    settings: Settings, three: list[Shard], client: redis.Redis, archive: Archive, broken: int
) -> None:
    async def test() -> None:
        async with taking(lambda: connect(settings), shards=3) as intake:
            client.delete(Keys(broken).store)
            with pytest.raises(BusyError):
                await intake.submit(REQUEST, 1, "key", b"hash")
            shards = set_up(client, archive, 3)
            with suppress(BusyError):  # a writer that knew the old store is refused by the new one once
                await intake.submit(REQUEST, 1, "key", b"hash")
            await intake.submit(REQUEST, 1, "key", b"hash")
            assert held(shards) == ONCE

    run(test)


# A store that goes away ------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
def test_a_store_that_was_emptied_takes_nothing_until_it_is_set_up_again(
    connect_shared: Connect, shard: Shard, client: redis.Redis, archive: Archive
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit([sent("a", 1)], 1)
            client.flushall()
            for reason in ("not the one from the start of this program", "not set up yet", "not set up yet"):
                with pytest.raises(BusyError, match=reason):
                    await intake.submit([sent("a", 2)], 1)
            assert client.dbsize() == 0
            [new] = set_up(client, archive, 1)
            await intake.submit([sent("a", 3)], 1)
            assert numbers(tail(new, "a")) == [3]

    run(test)


@pytest.mark.usefixtures("way")
def test_while_redis_is_away_all_is_refused(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)

    async def test() -> None:
        with connect(settings) as client:
            [shard] = set_up(client, Archive(settings.archive_dir), 1)
        async with taking(lambda: connect(settings)) as intake:
            await intake.submit([sent("a", 1)], 1, "key", b"hash")
            own_redis.kill()
            waits = [asyncio.ensure_future(intake.submit([sent("a", 2)], 1)) for _ in range(3)]
            assert await outcomes(*waits) == [BusyError] * 3
            with pytest.raises(BusyError, match="cannot reach Redis"):
                await intake.submit([sent("a", 2)], 1)
            own_redis.start()
            await intake.submit([sent("a", 3)], 1)
            await intake.submit([sent("a", 1)], 1, "key", b"hash")
        with connect(settings) as client:
            shard.client = client
            assert numbers(tail(shard, "a")) == [1, 3], "what was acknowledged is still there, once"

    run(test)


@pytest.mark.usefixtures("way")
def test_a_fault_of_ours_is_answered_and_forgotten(
    connect_shared: Connect, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            with monkeypatch.context() as broken:
                broken.setattr("telemetry.hot_store.operations.append._append_words", lambda *_, **_named: 1 / 0)
                with pytest.raises(BusyError, match="ZeroDivisionError"):
                    await intake.submit([sent()], 1)
            await intake.submit([sent()], 1)

    run(test)


# The end ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
def test_stop_stores_what_was_submitted(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            client.client_pause(PAUSE_MS, all=False)
            waits = [asyncio.ensure_future(intake.submit([sent("d", n)], 1)) for n in range(50)]
            await asyncio.sleep(0.02)
            stopping = asyncio.ensure_future(intake.stop())
            await asyncio.sleep(0.02)
            client.client_unpause()
            await stopping
            assert await outcomes(*waits) == [None] * 50
            assert numbers(tail(shard, "d")) == list(range(50))
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("intake-")]

    run(test)


def test_an_intake_that_does_not_run_refuses(connect_shared: Connect) -> None:
    async def test() -> None:
        intake = Intake(connect_shared, 1, Limits(), 100)
        with pytest.raises(BusyError, match="not running"):
            await intake.submit([sent()], 1)

    run(test)


@pytest.mark.usefixtures("way")
def test_one_who_gives_up_waiting_disturbs_nobody(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            client.client_pause(PAUSE_MS, all=False)
            waits = [asyncio.ensure_future(intake.submit([sent("d", n)], 1)) for n in range(3)]
            await asyncio.sleep(0.02)
            waits[1].cancel()
            client.client_unpause()
            assert await outcomes(*waits) == [None, asyncio.CancelledError, None]
            assert numbers(tail(shard, "d")) == [0, 1, 2]
            assert intake.has_room

    run(test)


def test_the_records_of_a_request_keep_their_order(connect_shared: Connect, shard: Shard) -> None:
    records: list[Sent] = [sent("ab"[n % 2], n) for n in range(2_500)]

    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit(records, 1)
            assert numbers(tail(shard, "a")) == list(range(0, 2_500, 2))
            assert numbers(tail(shard, "b")) == list(range(1, 2_500, 2))

    run(test)
