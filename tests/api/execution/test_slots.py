"""Slots: their order, shares and waiting times."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from api.execution.slots import Slot, SlotLimits, Slots
from api.requests.asker import THE_BOX, Asker
from telemetry.http.problem_responses import ProblemError

A, B, C = Asker("", "192.0.2.1"), Asker("", "192.0.2.2"), Asker("k", "192.0.2.3")


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


async def refused(slots: Slots, asker: Asker) -> str:
    with pytest.raises(ProblemError) as caught:
        await slots.take(asker)
    assert caught.value.kind.status == 503
    assert caught.value.headers is not None
    assert int(caught.value.headers["Retry-After"]) >= 1
    return str(caught.value)


async def waiting(slots: Slots, *askers: Asker) -> list[asyncio.Task[Slot]]:
    found = [asyncio.create_task(slots.take(one)) for one in askers]
    await asyncio.sleep(0)
    return found


def test_a_share_leaves_some_to_others() -> None:
    half = SlotLimits(4, 8, 1, 50)
    assert [half.share(places) for places in (0, 1, 2, 3, 4, 8, 256)] == [0, 1, 1, 1, 2, 4, 128]
    assert [SlotLimits(4, 8, 1, 99).share(places) for places in (1, 2, 4)] == [1, 1, 3]
    assert [SlotLimits(4, 8, 1, 1).share(places) for places in (1, 2, 4)] == [1, 1, 1]
    assert SlotLimits(4, 8, 1).share(4) == 4


def test_an_address_and_a_key_hold_at_most_their_share_of_the_slots() -> None:
    async def test() -> None:
        slots = Slots(SlotLimits(4, 8, 0.05, 75, shares_slots=True), "exports")
        held = [await slots.take(A) for _ in range(3)]
        assert "no slot for exports became free in 0.05 s" in await refused(slots, A)
        last = await slots.take(Asker("k", "192.0.2.9"))
        last.free()
        for one in held:
            one.free()
        for number in range(3):
            await slots.take(Asker("k", f"192.0.2.{number}"))
        await refused(slots, Asker("k", "192.0.2.9"))
        await slots.take(A)
        assert slots.count == 4

    run(test())


def test_waiting_places_are_limited_in_total_and_per_asker() -> None:
    async def test() -> None:
        slots = Slots(SlotLimits(1, 4, 5, 75), "queries")
        running = await slots.take(A)
        waiters = await waiting(slots, A, A, A)
        assert await refused(slots, A) == "too many queries of this key or address are waiting"
        waiters += await waiting(slots, B)
        assert await refused(slots, C) == "too many queries are waiting"
        running.free()
        for waiter in (waiters[3], *waiters[:3]):  # an asker without a turn is first, although it came last
            (await waiter).free()
        assert slots.count == 0

    run(test())


def test_the_asker_with_the_fewest_slots_is_next_then_the_one_with_the_oldest_turn() -> None:
    async def test() -> None:
        slots = Slots(SlotLimits(2, 8, 5), "queries")
        first, second = await slots.take(A), await slots.take(A)
        waiters = await waiting(slots, A, A, B, THE_BOX)
        first.free()
        assert [waiter.done() for waiter in waiters] == [False] * 4
        await waiters[2]
        assert not waiters[3].done()
        second.free()
        await waiters[3]
        assert [waiter.done() for waiter in waiters] == [False, False, True, True]
        for waiter in waiters[:2]:
            waiter.cancel()
        await asyncio.sleep(0)
        assert slots.count == 2

    run(test())


def test_a_cancelled_waiter_releases_a_slot_granted_meanwhile() -> None:
    async def test() -> None:
        slots = Slots(SlotLimits(1, 8, 5), "queries")
        running = await slots.take(A)
        leaving, staying = await waiting(slots, B, C)
        running.free()
        leaving.cancel()
        (await staying).free()
        assert slots.count == 0

    run(test())


class Client:
    def __init__(self, is_slow: bool = True) -> None:
        self.is_slow = is_slow
        self.ended = 0

    def end(self) -> None:
        self.ended += 1


def test_slow_readers_lose_their_slots_only_to_waiting_askers() -> None:
    async def test() -> None:
        slots = Slots(SlotLimits(3, 8, 5, 75, shares_slots=True), "exports")
        quick, slow, other = Client(is_slow=False), Client(), Client()
        await slots.take(A, quick)
        held = [await slots.take(A, slow), await slots.take(B, other)]
        await asyncio.sleep(0.3)
        assert (slow.ended, other.ended) == (0, 0)
        [waiter] = await waiting(slots, B)
        await asyncio.sleep(0.6)
        assert (quick.ended, slow.ended, other.ended) == (0, 1, 0)
        held[0].free()
        await waiter
        [waiter] = await waiting(slots, B)  # B has its share: only B's own slow reader makes room for it
        await asyncio.sleep(0.6)
        assert (slow.ended, other.ended) == (1, 1)
        held[1].free()
        await waiter

    run(test())
