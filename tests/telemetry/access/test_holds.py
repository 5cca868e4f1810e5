"""The registry of what holds a credential."""

from __future__ import annotations

import asyncio

from telemetry.access.holds import TURN_HOLDERS, Holds
from telemetry.model.api_keys import WRONG, Denied


class Connection:
    def __init__(self) -> None:
        self.ended: list[Denied] = []

    def end(self, denied: Denied) -> None:
        self.ended.append(denied)


def odd(number: int) -> Denied | None:
    return WRONG if number % 2 else None


def test_only_what_is_judged_and_denied_is_ended_and_only_once() -> None:
    holds = Holds[int]()
    some = [Connection() for _ in range(5)]
    for number, one in enumerate(some[:4]):
        holds.take("a", number, one)
    holds.take("b", 1, some[4])
    assert holds.ids == ["a", "b"]
    for _ in range(2):
        asyncio.run(holds.judge("a", odd))
    asyncio.run(holds.judge("nobody's", odd))
    assert [len(one.ended) for one in some] == [0, 1, 0, 1, 0]
    holds.take("a", 3, some[0])  # what it holds has changed
    asyncio.run(holds.judge("a", odd))
    assert some[0].ended == [WRONG]
    assert holds.release("a", some[2])
    assert not holds.release("a", some[2])
    assert holds.ids == ["b"]


def test_many_holders_do_not_hold_up_the_event_loop_nor_end_who_left_meanwhile() -> None:
    async def test() -> tuple[int, list[Connection]]:
        holds, turns = Holds[int](), 0
        some = [Connection() for _ in range(3 * TURN_HOLDERS)]
        for one in some:
            holds.take("a", 1, one)
        judging = asyncio.ensure_future(holds.judge("a", odd))
        while not judging.done():
            await asyncio.sleep(0)
            turns += 1
            holds.release("a", some[-1])
        return turns, some

    turns, some = asyncio.run(test())
    assert turns >= 3
    assert [len(one.ended) for one in some] == [1] * (len(some) - 1) + [0]
