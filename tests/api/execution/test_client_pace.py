"""The pace of clients: when a client is slow, and an aborted response."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from api.execution.client_pace import MinimumPace, Pace, PacedClient


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("pieces", "is_slow"),
    [
        ([], False),
        ([(1_000, 1.0)] * 9, False),  # shorter than the window
        ([(1_000, 1.0)] * 10, False),
        ([(999, 1.0)] * 10, True),
        ([(999, 1.0)] * 10 + [(1_000, 0.0)], True),
        ([(999, 1.0)] * 10 + [(10_000, 0.0)], False),  # a later fast piece compensates
        ([(10_000, 10.0)] * 3, False),
        ([(10_000, 11.0)], True),
    ],
)
def test_slow_clients(pieces: list[tuple[int, float]], is_slow: bool) -> None:
    clock = Clock()
    pace = Pace(MinimumPace(1_000, 10.0), clock)
    for size, seconds in pieces:
        pace.begin(size)
        clock.now_s += seconds
        pace.end()
        clock.now_s += 60  # time between pieces does not count
    assert pace.is_slow == is_slow


def test_a_client_that_stops_reading_is_slow_during_a_piece() -> None:
    clock = Clock()
    pace = Pace(MinimumPace(1_000, 10.0), clock)
    pace.begin(20_000)
    clock.now_s = 20
    assert not pace.is_slow
    clock.now_s = 20.1
    assert pace.is_slow
    no_minimum = Pace(MinimumPace(), clock)
    no_minimum.begin(1)
    clock.now_s = 1_000
    assert not no_minimum.is_slow


def test_a_response_is_aborted_and_its_task_continues() -> None:
    async def never(_message: Message) -> None:
        await asyncio.Event().wait()

    async def test() -> str:
        client = PacedClient(MinimumPace())
        asyncio.get_running_loop().call_later(0.01, client.end)
        with client:
            await client.send(never, b"x", True)
        client.end()
        assert client.was_ended
        await asyncio.sleep(0)
        return "goes on"

    assert asyncio.run(test()) == "goes on"


def test_another_cancellation_is_raised() -> None:
    async def wait() -> None:
        with PacedClient(MinimumPace()):
            await asyncio.Event().wait()

    async def test() -> None:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(test())
