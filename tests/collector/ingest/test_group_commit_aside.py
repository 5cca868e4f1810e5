"""Quarantine of rejected messages: written before the sender is answered, and bounded."""

from __future__ import annotations

import asyncio

import pytest
import redis

from cli.admin.quarantine import records_of
from collector.ingest.group_commit import Intake
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.operations.quarantine import (
    MAX_ASIDE_BYTES,
    QuarantineCounts,
    quarantine_counts,
    quarantine_rejected,
    read_quarantine,
)
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError
from telemetry.model.record import encode
from tests.collector.conftest import Connect, numbers, run, sent, tail, taking

ASIDE = Aside("d", "checksum: is wrong", b"\x78\x78\x00")


def test_it_is_in_quarantine_when_its_message_is_safe(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.offer([sent("d", 1)], 100, aside=(ASIDE,))
            (one,) = read_quarantine(shard)
            assert (one.device_id, one.reason, one.raw) == ASIDE
            assert one.was_never_a_record
            assert one.arrival_ms == one.at_ms
            assert numbers(tail(shard, "d")) == [1]
            await intake.offer((), 0, aside=(ASIDE, ASIDE))
            assert quarantine_counts(shard).kept == 3

    run(test)


def test_if_it_cannot_be_kept_nothing_of_its_message_is_acked(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with taking(connect_shared) as intake:
            await intake.offer([sent("d", 1)], 100)
            client.hset(shard.keys.store, "id", "another")
            with pytest.raises(BusyError):
                await intake.offer([], 0, aside=(ASIDE,))

    run(test)
    assert list(read_quarantine(shard)) == []


def test_the_oldest_go_when_it_is_full_and_long_ones_are_cut(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        intake = Intake(connect_shared, 1, Limits(), 2**20, max_aside_bytes=3 * MAX_ASIDE_BYTES)
        intake.start()
        for number in range(5):
            await intake.offer((), 0, aside=(Aside("d", str(number), b"x" * 10_000),))
        await intake.stop()

    asyncio.run(test())
    found = list(read_quarantine(shard))
    assert [one.reason for one in found] == ["2", "3", "4"]
    assert {len(one.raw) for one in found} == {MAX_ASIDE_BYTES}
    assert quarantine_counts(shard) == QuarantineCounts(5, 2, 0)


def test_bytes_that_look_like_a_record_are_none(shard: Shard) -> None:
    """Or whoever can reach a port could write into any device, with the operator's help."""
    forged = encode(sent("victim", 7).record)
    append_batches(shard, [Batch(())], Limits())
    quarantine_rejected(shard, [Aside("victim", "out of step", forged)], 2**20)
    (one,) = read_quarantine(shard)
    assert records_of(one) == []
