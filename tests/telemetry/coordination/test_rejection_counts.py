"""What was refused is counted once, by every program, also while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from telemetry.config.settings import Settings
from telemetry.coordination import rejection_counts, shared_state
from telemetry.hot_store.client import connect
from telemetry.model import problems
from tests.conftest import RedisServer, settings_of

WAIT_S = 20


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Report often, and leave nothing counted to other tests."""
    monkeypatch.setattr(rejection_counts, "REPORT_S", 0.01)
    rejection_counts._counted.clear()
    yield
    rejection_counts._counted.clear()


async def until_told(client: redis.Redis, expected: dict[str, int]) -> None:
    async with asyncio.timeout(WAIT_S):
        while shared_state.refused(client) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_what_is_counted_goes_to_redis_by_its_reason(client: redis.Redis, settings: Settings) -> None:
    async def test() -> None:
        async with rejection_counts.reported(lambda: connect(settings)):
            rejection_counts.count(problems.INVALID_JSON)
            rejection_counts.count(problems.INVALID_JSON, 4)
            rejection_counts.count(problems.BUSY, 0)
            await until_told(client, {"invalid-json": 5})
            rejection_counts.count_status(413)
            rejection_counts.count_status(202)
            await until_told(client, {"invalid-json": 5, "body-too-large": 1})

    asyncio.run(test())


def test_what_is_not_there_is_no_refusal(client: redis.Redis, settings: Settings) -> None:
    async def test() -> None:
        async with rejection_counts.reported(lambda: connect(settings)):
            rejection_counts.count(problems.NOT_FOUND)
            rejection_counts.count(problems.UNKNOWN_DEVICE)

    asyncio.run(test())
    assert shared_state.refused(client) == {}


def test_the_last_of_it_is_reported_at_the_end(client: redis.Redis, settings: Settings) -> None:
    async def test() -> None:
        async with rejection_counts.reported(lambda: connect(settings)):
            rejection_counts.count(problems.TIMED_OUT)

    asyncio.run(test())
    assert shared_state.refused(client) == {"timed-out": 1}


def test_programs_add_up(client: redis.Redis, settings: Settings) -> None:
    for _ in range(3):
        shared_state.add_refused(client, {"busy": 2, "invalid-json": 1})
    assert shared_state.refused(client) == {"busy": 6, "invalid-json": 3}


def test_while_redis_is_away_it_is_kept(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)

    async def test() -> None:
        async with rejection_counts.reported(lambda: connect(settings)):
            own_redis.kill()
            rejection_counts.count(problems.INVALID_RECORD, 3)
            await asyncio.sleep(0.2)
            rejection_counts.count(problems.INVALID_RECORD)
            own_redis.start()
            with own_redis.client() as client:
                await until_told(client, {"invalid-record": 4})

    asyncio.run(test())


def test_at_the_memory_limit_it_is_kept(client: redis.Redis, settings: Settings) -> None:
    async def test() -> None:
        async with rejection_counts.reported(lambda: connect(settings)):
            client.config_set("maxmemory", 1)
            rejection_counts.count(problems.BUSY)
            await asyncio.sleep(0.1)
            client.config_set("maxmemory", 0)
            await until_told(client, {"busy": 1})

    asyncio.run(test())
