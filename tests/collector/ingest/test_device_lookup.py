"""Look-ups of known devices: remembered for a while, shared, and bounded in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from collector.ingest import device_lookup
from collector.ingest.device_lookup import KNOWN_S, UNKNOWN_S, DeviceLookups
from telemetry.model.errors import StoreUnavailable
from tests.collector.conftest import run


class Reads:
    """Stands in the place of Redis, which coordination/test_known_devices.py asks: counts questions, and may hold one
    up.
    """

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_away = False
        self.known = {"a"}

    def __call__(self, devices: Sequence[str]) -> list[bool]:
        self.questions.append(list(devices))
        assert self.may_go.wait(10)
        if self.is_away:
            raise StoreUnavailable("cannot reach Redis")
        return [one in self.known for one in devices]


def test_an_answer_is_remembered_for_its_time() -> None:
    async def test() -> None:
        reads, now_s = Reads(), [0.0]
        lookups = DeviceLookups(reads, lambda: now_s[0])
        assert lookups.is_known("a") is None
        await lookups.look_up(["a", "b"])
        assert (lookups.is_known("a"), lookups.is_known("b")) == (True, False)
        now_s[0] = UNKNOWN_S
        assert (lookups.is_known("a"), lookups.is_known("b")) == (True, None)
        now_s[0] = KNOWN_S
        assert lookups.is_known("a") is None
        assert (lookups.was_known("a"), lookups.was_known("b"), lookups.was_known("c")) == (True, False, False)
        assert reads.questions == [["a", "b"]]

    run(test)


def test_those_who_ask_meanwhile_share_the_next_question() -> None:
    async def test() -> None:
        reads = Reads()
        reads.may_go.clear()
        lookups = DeviceLookups(reads)
        asking = [asyncio.create_task(lookups.look_up(["a"]))]
        while not reads.questions:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        asking += [asyncio.create_task(lookups.look_up([name])) for name in ("b", "c", "b", "a")]
        await asyncio.sleep(0.05)
        reads.may_go.set()
        await asyncio.gather(*asking)
        assert reads.questions == [["a"], ["b", "c", "a"]]

    run(test)


def test_all_who_asked_hear_that_redis_is_away_and_the_next_may_succeed() -> None:
    async def test() -> None:
        reads = Reads()
        reads.is_away = True
        lookups = DeviceLookups(reads)
        found = await asyncio.gather(*(lookups.look_up([name]) for name in "abc"), return_exceptions=True)
        assert [type(one) for one in found] == [StoreUnavailable] * 3
        assert lookups.is_known("a") is None
        reads.is_away = False
        await lookups.look_up(["a"])
        assert lookups.is_known("a")

    run(test)


def test_who_gives_up_ends_the_question_of_nobody_else() -> None:
    async def test() -> None:
        reads = Reads()
        reads.may_go.clear()
        lookups = DeviceLookups(reads)
        first, second = (asyncio.create_task(lookups.look_up([name])) for name in ("a", "b"))
        await asyncio.sleep(0.05)
        first.cancel()
        reads.may_go.set()
        await second
        assert lookups.is_known("a")

    run(test)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_lookup, "MAX_REMEMBERED", 3)
    monkeypatch.setattr(device_lookup, "READ_DEVICES", 2)

    async def test() -> None:
        reads = Reads()
        lookups = DeviceLookups(reads)
        await lookups.look_up(["a", "b", "c"])
        await lookups.look_up(["a", "d"])
        assert [lookups.is_known(one) for one in "abcd"] == [True, None, False, False]
        assert reads.questions == [["a", "b"], ["c"], ["a", "d"]]

    run(test)
