"""The intake's counters agree with the outcome of the records."""

from __future__ import annotations

import asyncio

import redis

from collector.ingest.group_commit import Intake
from telemetry.hot_store.operations.append import Limits
from telemetry.hot_store.shard import Shard
from telemetry.observability import metrics
from tests.collector.conftest import Connect, run, sent, taking
from tests.collector.ingest.test_group_commit import outcomes


def counted() -> dict[str, float]:
    """What is counted so far."""
    histograms = {"acks": metrics.ACK_S, "groups": metrics.GROUP_RECORDS, "appends": metrics.APPEND_S}
    found = {name: float(sum(family.one.counts)) for name, family in histograms.items()}
    return found | {
        "accepted": metrics.ACCEPTED.one.value,
        "repeated": metrics.REPEATED.one.value,
        "in groups": metrics.GROUP_RECORDS.one.sum,
    }


def since(before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in counted().items()}


def test_all_that_is_stored_is_counted_once(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.submit([sent()], 1)
            before = counted()
            client.client_pause(10_000, all=False)
            first = asyncio.ensure_future(intake.submit([sent("a")], 1))
            await asyncio.sleep(0.05)
            others = [asyncio.ensure_future(intake.submit([sent("d", n)] * 3, 1)) for n in range(100)]
            await asyncio.sleep(0.05)
            assert metrics.PENDING_BYTES.one.read() == 101
            client.client_unpause()
            assert await outcomes(first, *others) == [None] * 101
            assert metrics.PENDING_BYTES.one.read() == 0
            found = since(before)
            groups = found.pop("groups")
            assert groups <= 3
            assert found == {"acks": 101, "appends": groups, "accepted": 301, "repeated": 0, "in groups": 301}

    run(test)


def test_a_repeat_is_told_apart(connect_shared: Connect) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            before = counted()
            for _ in range(3):
                await intake.submit([sent("d", 1), sent("d", 2)], 10, "key", b"hash")
            found = since(before)
            assert (found["accepted"], found["repeated"], found["acks"]) == (2, 2, 1)

    run(test)


def test_what_is_not_stored_is_not_accepted(connect_shared: Connect) -> None:
    async def test() -> None:
        async with taking(connect_shared, limits=Limits(max_devices=1)) as intake:
            before = counted()
            assert await outcomes(asyncio.ensure_future(intake.submit([sent("a")], 1))) == [None]
            [refused] = await outcomes(asyncio.ensure_future(intake.submit([sent("b"), sent("c")], 1)))
            assert refused is not None
            found = since(before)
            assert (found["accepted"], found["acks"]) == (1, 1)

    run(test)


def test_the_bound_stands_beside_what_waits(connect_shared: Connect) -> None:
    async def test() -> None:
        intake = Intake(connect_shared, 1, Limits(), 12_345)
        intake.start()
        assert metrics.PENDING_LIMIT.one.read() == 12_345
        await intake.stop()

    run(test)
