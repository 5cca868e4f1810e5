"""Slots: who gets the next, how many one may hold, how long anybody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from api.execution.slots import Slot, Slots, Terms
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
    half = Terms(4, 8, 1, 50)
    assert [half.share(places) for places in (0, 1, 2, 3, 4, 8, 256)] == [0, 1, 1, 1, 2, 4, 128]
    assert [Terms(4, 8, 1, 99).share(places) for places in (1, 2, 4)] == [1, 1, 3]
    assert [Terms(4, 8, 1, 1).share(places) for places in (1, 2, 4)] == [1, 1, 1]
    assert Terms(4, 8, 1).share(4) == 4


def test_one_address_and_one_key_hold_their_share_of_the_slots() -> None:
    async def test() -> None:
        slots = Slots(Terms(4, 8, 0.05, 75, shares_slots=True), "exports")
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


def test_the_waiting_places_are_bounded_and_no_one_has_all() -> None:
    async def test() -> None:
        slots = Slots(Terms(1, 4, 5, 75), "queries")
        running = await slots.take(A)
        waiters = await waiting(slots, A, A, A)
        assert await refused(slots, A) == "too many queries of this key or address are waiting"
        waiters += await waiting(slots, B)
        assert await refused(slots, C) == "too many queries are waiting"
        running.free()
        for waiter in (waiters[3], *waiters[:3]):  # who had no turn yet goes first, though the last to come
            (await waiter).free()
        assert slots.count == 0

    run(test())


def test_who_has_the_fewest_is_next_then_who_had_no_turn_for_longest() -> None:
    async def test() -> None:
        slots = Slots(Terms(2, 8, 5), "queries")
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


def test_one_that_leaves_as_its_slot_comes_gives_it_on() -> None:
    async def test() -> None:
        slots = Slots(Terms(1, 8, 5), "queries")
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


def test_slow_readers_lose_their_slots_to_those_who_wait_and_to_no_one_else() -> None:
    async def test() -> None:
        slots = Slots(Terms(3, 8, 5, 75, shares_slots=True), "exports")
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
