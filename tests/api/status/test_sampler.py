"""Samples of the last hour on a real Redis: limited, restored after a restart, and taken also while Redis is down."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
import redis

from api.status import sampler as sampling
from api.status.sampler import INTERVAL_S, MAX_SAMPLES, LastReports, Sample, Sampler, Stores, ask
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.coordination.metric_reports import Report
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.observability import metrics
from telemetry.system import clock as box_clock
from telemetry.system.disk_space import Room
from tests.conftest import RedisServer

NOW_S = 1_795_500_000.0


class Clock:
    """The box's clock, and reports of programs at its time."""

    def __init__(self) -> None:
        self.now_s = NOW_S
        self.accepted = 0.0
        self.open_day_files: float | None = 3.0

    def now_us(self) -> int:
        return round(self.now_s * 1_000_000)

    def now_ms(self) -> int:
        return round(self.now_s * 1_000)

    def heard(self) -> LastReports:
        report = Report(
            "collector",
            0,
            "1",
            "3.11",
            NOW_S - 1_000,
            {
                metrics.ACCEPTED.name: [((), self.accepted)],
                metrics.DECODED.name: [(("json", "http"), self.accepted)],
                metrics.OPEN_DAY_FILES.name: [] if self.open_day_files is None else [((), self.open_day_files)],
            },
        )
        return {report.name: (report, 0.5)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(box_clock, "now_us", found.now_us)
    monkeypatch.setattr(box_clock, "now_ms", found.now_ms)
    return found


def sampler_of(settings: Settings, clock: Clock) -> Sampler:
    room = Room.of(settings)
    return Sampler(
        lambda: connect(settings), lambda client: ask(client, settings, room), clock.heard, lambda: clock.now_s
    )


def take(sampler: Sampler, client: redis.Redis, clock: Clock, accepted: float = 0) -> None:
    clock.now_s += INTERVAL_S
    clock.accepted += accepted
    sampler.take(client)


def test_a_sample_says_what_happened_since_the_look_before(
    settings: Settings, client: redis.Redis, shard: Shard, clock: Clock
) -> None:
    sampler = sampler_of(settings, clock)
    clock.accepted = 5_000
    sampler.take(client)
    assert sampler.samples(clock.now_ms()) == []  # with what should it be compared?

    append_batches(shard, [Batch(pack([Sent("van-7", Record(clock.now_us(), "http", "json"))]))], Limits())
    shared_state.add_refused(client, {"invalid-json": 20})
    take(sampler, client, clock, 120)
    (found,) = sampler.samples(clock.now_ms())
    assert found.at_ms == clock.now_ms()
    assert (found.accepted_per_s, found.refused_per_s) == (12.0, 2.0)
    assert found.decoded == [("json", "http", 120, 0)]
    assert found.unsaved_records == 1
    assert found.unsaved_age_s is not None
    assert found.open_day_files == 3
    assert found.redis_memory_bytes is not None
    assert found.redis_memory_bytes > 100_000
    assert found.disk_free_bytes is not None
    assert (found.ack_p50_ms, found.ack_p99_ms) == (None, None)
    assert sampler.counts().accepted == 5_120
    assert sampler.stores().server is not None


def test_they_are_bounded_and_there_again_after_a_start(
    settings: Settings, client: redis.Redis, shard: Shard, clock: Clock
) -> None:
    first = sampler_of(settings, clock)
    first.take(client)
    for _ in range(MAX_SAMPLES + 5):
        take(first, client, clock, 10)
    assert client.llen(shared_state.BOX) == MAX_SAMPLES
    assert 0 < (client.memory_usage(shared_state.BOX) or 0) < 200_000
    kept = first.samples(clock.now_ms())
    assert len(kept) == MAX_SAMPLES

    second = sampler_of(settings, clock)
    assert second.samples(clock.now_ms()) == []
    take(second, client, clock, 10)
    assert second.samples(clock.now_ms()) == kept[1:]  # the oldest is more than an hour old now
    take(second, client, clock, 10)
    assert second.samples(clock.now_ms())[-1].accepted_per_s == 1.0
    assert second.samples(clock.now_ms() + 3_600_000) == []


def test_without_redis_it_goes_on(tmp_path: Path, own_redis: RedisServer, settings: Settings, clock: Clock) -> None:
    sampler = sampler_of(settings, clock)
    with own_redis.client() as client:
        sampler.take(client)
        own_redis.kill()
        take(sampler, client, clock, 50)
        own_redis.start()
        take(sampler, client, clock, 70)
    gone, back = sampler.samples(clock.now_ms())
    assert (gone.accepted_per_s, gone.redis_memory_bytes, gone.unsaved_records) == (5.0, None, None)
    assert gone.disk_free_bytes is not None
    assert back.accepted_per_s == 7.0
    assert back.redis_memory_bytes is not None


def test_a_clock_that_is_set_back_leaves_no_sample_of_the_future(
    settings: Settings, client: redis.Redis, shard: Shard, clock: Clock
) -> None:
    sampler = sampler_of(settings, clock)
    sampler.take(client)
    for _ in range(5):
        take(sampler, client, clock)
    clock.now_s -= 2.5 * INTERVAL_S
    sampler.take(client)
    times = [one.at_ms for one in sampler.samples(clock.now_ms())]
    assert len(times) == 3
    assert times == sorted(times)


def test_a_sample_of_another_release_is_left_out(
    settings: Settings, client: redis.Redis, shard: Shard, clock: Clock
) -> None:
    whole = Sample(clock.now_ms() - 60_000, accepted_per_s=1.0)
    for text in (b"{", b'{"at_ms": "then"}', msgspec.json.encode(whole), b'{"at_ms":1,"more":[1]}'):
        shared_state.keep_sample(client, text, MAX_SAMPLES)
    sampler = sampler_of(settings, clock)
    sampler.take(client)
    assert sampler.samples(clock.now_ms()) == [whole]


def test_the_thread_takes_the_first_look_soon_and_ends_when_it_is_told(
    settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "FIRST_S", 0.01)
    monkeypatch.setattr(sampling, "INTERVAL_S", 0.05)
    found = Clock()
    sampler = Sampler(lambda: connect(settings), lambda _: Stores(), found.heard, time.monotonic)
    sampler.start()
    deadline = time.monotonic() + 10
    while client.llen(shared_state.BOX) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sampler.stop()
    assert not sampler._thread.is_alive()
