"""Numbered batches: stored once, in order, and none lost because a later one was stored first."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import redis

from collector.ingest import batch_order
from collector.ingest.batch_order import Lane, Numbered
from collector.ingest.day_limit import DeviceDays
from collector.ingest.group_commit import Intake
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.hot_store.operations.append import Appended, Limits, append_batches
from telemetry.hot_store.response_errors import DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, TooManyDays
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import set_up
from tests.collector.conftest import NOW_US, Connect, numbers, run, sent, tail, taking
from tests.conftest import RedisServer, settings_of

PAUSE_MS = 10_000
STORED, REPEATED = False, True


def offer(
    intake: Intake, number: int, lane: Lane, device: str = "d", sender: str = "s", *more: Sent
) -> asyncio.Future[bool]:
    return intake.offer([sent(device, number), *more], 1, Numbered(sender, number, lane))


async def results(*waits: asyncio.Future[bool]) -> list[object]:
    """What becomes of each: whether it was stored before, or the kind of its error."""
    found = await asyncio.gather(*waits, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else one for one in found]


def test_a_number_is_stored_once(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            lane = Lane()
            waits = [offer(intake, number, lane) for number in (1, 2, 2, 1, 3)]
            assert await results(*waits) == [STORED, STORED, REPEATED, REPEATED, STORED]
            assert await results(offer(intake, 3, Lane()), offer(intake, 4, Lane())) == [REPEATED, STORED]
            assert numbers(tail(shard, "d")) == [1, 2, 3, 4]

    run(test)


def test_named_and_others_in_one_call(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            client.client_pause(PAUSE_MS, all=False)
            lane = Lane()
            waits = [offer(intake, 1, lane), intake.offer([sent("d", 7)], 1), offer(intake, 2, lane)]
            keyed = asyncio.ensure_future(intake.submit([sent("d", 8)], 1, "s", b"hash"))
            await asyncio.sleep(0.02)
            client.client_unpause()
            assert await results(*waits) == [STORED] * 3
            await keyed
            assert sorted(numbers(tail(shard, "d"))) == [1, 2, 7, 8]

    run(test)


def test_records_of_one_device_rest_together_whoever_sent_them(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            client.client_pause(PAUSE_MS, all=False)
            first = offer(intake, 1, Lane(), "c")  # a group of its own, during whose call the others come
            await asyncio.sleep(0.02)
            waits = [first, *(offer(intake, 1, Lane(), "d", sender) for sender in "abc"), offer(intake, 2, Lane(), "d")]
            client.client_unpause()
            assert await results(*waits) == [STORED] * 5
            [entries] = shard.entries([("d", "-", "+")])
            assert (len(entries), numbers(tail(shard, "d"))) == (1, [1, 1, 1, 2])

    run(test)


# None overtakes its sender's earlier ones -----------------------------------------------------------


def test_behind_a_failure_all_fail_until_it_comes_again(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_devices=1)) as intake:
            lane = Lane()
            assert await results(offer(intake, 1, lane)) == [STORED]
            assert await results(offer(intake, 2, lane, "new")) == [DevicesFull]
            assert await results(offer(intake, 4, lane), offer(intake, 3, lane)) == [BusyError] * 2
            assert await results(offer(intake, 3, lane, sender="other")) == [STORED], "others go"
            assert await results(offer(intake, 2, lane), offer(intake, 3, lane)) == [STORED] * 2
            assert numbers(tail(shard, "d")) == [1, 3, 2, 3]

    run(test)


def test_in_one_group_too(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    """The one that can't be stored is searched for by halves; what stands behind it must not be stored meanwhile."""

    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_devices=1)) as intake:
            assert await results(intake.offer([sent("d", 0)], 1)) == [STORED]
            for bad in range(8):
                sender, lane = f"s{bad}", Lane()
                client.client_pause(PAUSE_MS, all=False)
                waits = [offer(intake, n + 1, lane, "new" if n == bad else "d", sender) for n in range(8)]
                await asyncio.sleep(0.02)
                client.client_unpause()
                expected = [STORED] * bad + [DevicesFull] + [BusyError] * (7 - bad)
                assert await results(*waits) == expected
                again = [offer(intake, n + 1, lane, "d", sender) for n in range(8)]
                assert await results(*again) == [REPEATED] * bad + [STORED] * (8 - bad)

    run(test)


def test_what_waited_when_redis_failed_does_not_go_before_it(own_redis: RedisServer, tmp_path: Path) -> None:
    """Batches of one connection are in the queue when the first of them fails; its sender then begins anew."""
    settings = settings_of(own_redis.url, tmp_path)

    async def test() -> None:
        with connect(settings) as client:
            [shard] = set_up(client, Archive(settings.archive_dir), 1)
        async with taking(lambda: connect(settings)) as intake:
            first, second = Lane(), Lane()
            assert await results(offer(intake, 1, first)) == [STORED]
            own_redis.kill()
            assert await results(offer(intake, 2, first)) == [BusyError]
            own_redis.start()
            assert await results(offer(intake, 3, first)) == [BusyError], "2 was not stored yet"
            assert await results(offer(intake, 2, second), offer(intake, 3, second)) == [STORED] * 2
            assert await results(offer(intake, 2, first), offer(intake, 3, first)) == [REPEATED] * 2
        with connect(settings) as client:
            shard.client = client
            assert numbers(tail(shard, "d")) == [1, 2, 3]

    run(test)


def test_a_batch_without_records_gives_its_number_up(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_devices=1)) as intake:
            lane = Lane()
            waits = offer(intake, 1, lane), offer(intake, 2, lane, "new"), offer(intake, 3, lane)
            assert await results(*waits) == [STORED, DevicesFull, BusyError]
            given_up = intake.offer([], 1, Numbered("s", 2, lane))
            assert await results(given_up, offer(intake, 3, lane)) == [STORED] * 2
            assert numbers(tail(shard, "d")) == [1, 3]

    run(test)


def test_a_lane_with_too_many_failures_is_over(
    connect_shared: Connect, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_order, "MAX_FAILED_SENDERS", 2)

    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_devices=1)) as intake:
            lane = Lane()
            assert await results(offer(intake, 1, lane)) == [STORED]
            for number in range(3):
                assert not lane.is_over
                assert await results(offer(intake, 5, lane, "new", f"s{number}")) == [DevicesFull]
            assert lane.is_over
            assert await results(offer(intake, 9, lane), offer(intake, 5, lane, "d", "s1")) == [BusyError] * 2
            assert len(lane._failed) <= 3
            assert await results(offer(intake, 9, Lane())) == [STORED]

    run(test)


def test_too_many_senders_are_told_to_wait(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_senders=1)) as intake:
            lane = Lane()
            assert await results(offer(intake, 1, lane)) == [STORED]
            with pytest.raises(BusyError, match="max_senders") as caught:
                await offer(intake, 1, lane, sender="t")
            assert caught.value.retry_after_s == 30
            assert await results(offer(intake, 2, lane)) == [STORED]

    run(test)


# Several shards --------------------------------------------------------------------------------------

SPREAD = [f"device-{number}" for number in range(12)]


@pytest.fixture
def three(client: redis.Redis, archive: Archive) -> list[Shard]:
    """The shards of a store that has three."""
    assert {shard_of(device, 3) for device in SPREAD} == {0, 1, 2}
    return set_up(client, archive, 3)


def held(shards: list[Shard]) -> dict[str, list[int]]:
    return {device: numbers(tail(shards[shard_of(device, 3)], device)) for device in SPREAD}


def spread(number: int) -> list[Sent]:
    """A batch that touches each shard."""
    return [sent(device, number) for device in SPREAD]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_retry_stores_what_a_failed_shard_did_not(
    settings: Settings, three: list[Shard], client: redis.Redis, archive: Archive, broken: int
) -> None:
    async def test() -> None:
        async with taking(lambda: connect(settings), shards=3) as intake:
            lane = Lane()
            assert await results(intake.offer(spread(1), 1, Numbered("s", 1, lane))) == [STORED]
            client.delete(Keys(broken).store)
            for number in (2, 3):
                assert await results(intake.offer(spread(number), 1, Numbered("s", number, lane))) == [BusyError]
            shards = set_up(client, archive, 3)
            assert await results(intake.offer(spread(3), 1, Numbered("s", 3, lane))) == [BusyError]
            for number, expected in ((1, REPEATED), (2, STORED), (3, STORED), (3, REPEATED), (4, STORED)):
                assert await results(intake.offer(spread(number), 1, Numbered("s", number, lane))) == [expected]
            assert held(shards) == {device: [1, 2, 3, 4] for device in SPREAD}

    run(test)


def test_giving_a_number_up_lets_every_shard_go_on(
    settings: Settings, three: list[Shard], client: redis.Redis, archive: Archive
) -> None:
    async def test() -> None:
        async with taking(lambda: connect(settings), shards=3) as intake:
            lane = Lane()
            client.delete(Keys(1).store)
            assert await results(intake.offer(spread(1), 1, Numbered("s", 1, lane))) == [BusyError]
            set_up(client, archive, 3)
            assert await results(intake.offer([], 1, Numbered("s", 1, lane))) == [STORED]
            assert await results(intake.offer(spread(2), 1, Numbered("s", 2, lane))) == [STORED]

    run(test)


# Any faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_each_batch_is_stored_once_and_in_order(
    connect_shared: Connect, shard: Shard, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Calls fail before and after they were carried out, while a sender goes back to the first that failed."""
    rng = random.Random(seed)

    def failing(*args: Any, **named: Any) -> Appended:
        fault = rng.random()
        if fault < 0.2:
            raise BusyError("before")
        done = append_batches(*args, **named)
        if fault > 0.8:
            raise BusyError("after")
        return done

    monkeypatch.setattr("collector.ingest.shard_writer.append_batches", failing)

    async def one(intake: Intake, sender: str) -> None:
        lane, number = Lane(), 1
        while number <= 40:
            window = range(number, min(number + rng.randint(1, 8), 41))
            waits = []
            for n in window:
                waits.append(offer(intake, n, lane, sender, sender))
                await asyncio.sleep(0.001 * rng.randint(0, 1))
            found = await results(*waits)
            stored = [n for n, result in zip(window, found, strict=True) if result is not BusyError]
            assert stored == list(range(number, number + len(stored))), "none overtakes"
            number += len(stored)
            if rng.random() < 0.2:
                lane, number = Lane(), max(1, number - 3)  # a new connection, which sends some again

    async def test() -> None:
        async with taking(connect_shared) as intake:
            senders = [f"sender {n}" for n in range(5)]
            await asyncio.gather(*(one(intake, sender) for sender in senders))
            for sender in senders:
                assert numbers(tail(shard, sender)) == list(range(1, 41))

    run(test)


def test_no_batch_overtakes_one_with_too_many_past_days(connect_shared: Connect, shard: Shard) -> None:
    """Whatever a sender sends before it hears of it: else the retry would be taken for a repeat, and be lost."""

    def old(number: int) -> list[Sent]:
        past = [NOW_US - (10 * number + ago) * DAY_US for ago in (2, 3, 4)]
        return [Sent("d", Record(at_us, "tcp", "json", altitude_m=float(number))) for at_us in past]

    async def test() -> None:
        now_s = 50.0
        days = DeviceDays(4, lambda: NOW_US, lambda: now_s)
        async with taking(connect_shared, device_days=days) as intake:
            lane = Lane()
            batches = {1: old(1), 2: old(2), 3: [sent("d", 3)], 4: [sent("e", 4)]}
            offers = [intake.offer(batches[number], 1, Numbered("s", number, lane)) for number in batches]
            assert await results(*offers) == [STORED, TooManyDays, BusyError, BusyError]
            assert await results(intake.offer(old(2), 1)) == [TooManyDays]
            assert await results(intake.offer(batches[2], 1, Numbered("s", 2, lane))) == [TooManyDays]
            now_s += 3_600
            for number in (2, 3, 4):
                assert await results(intake.offer(batches[number], 1, Numbered("s", number, lane))) == [STORED]
            assert numbers(tail(shard, "d")) == [1, 1, 1, 2, 2, 2, 3]

    run(test)


def test_senders_that_cannot_be_told_to_wait_may_have_as_many_days_as_they_like(
    connect_shared: Connect, shard: Shard
) -> None:
    async def test() -> None:
        async with taking(connect_shared, device_days=DeviceDays(1, lambda: NOW_US, lambda: 0.0)) as intake:
            records = [Sent("d", Record(NOW_US - ago * DAY_US, "mqtt", "json")) for ago in range(2, 9)]
            with pytest.raises(TooManyDays):
                await intake.submit(records, 1)
            await intake.submit(records, 1, limits_days=False)
            assert len(tail(shard, "d")) == 7

    run(test)
