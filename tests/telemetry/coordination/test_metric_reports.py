"""What a process counts is heard by who listens, also after Redis was away; who falls silent is seen to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from telemetry.config.settings import Settings
from telemetry.coordination import metric_reports, shared_state
from telemetry.coordination.metric_reports import SILENT_S, Listener, Report, Reporter, is_up
from telemetry.hot_store.client import connect
from telemetry.observability import metrics
from tests.conftest import RedisServer, settings_of

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_reports, "PUBLISH_S", 0.02)
    monkeypatch.setattr(metric_reports, "WAIT_S", 0.05)


def until(is_so: Callable[[], bool]) -> None:
    stop_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < stop_s, "it does not come"
        time.sleep(0.01)


@pytest.fixture
def listener(settings: Settings, client: redis.Redis) -> Iterator[Listener]:
    """One that listens."""
    found = Listener(lambda: connect(settings))
    found.start()
    yield found
    found.stop()


def test_what_is_counted_is_heard_with_who_counted_it(settings: Settings, listener: Listener) -> None:
    failures = metrics.JOB_FAILURES.of("tidy")
    before = failures.value
    with metric_reports.publishing(lambda: connect(settings), Reporter("collector", 3)):
        failures.add(2)

        def is_heard() -> bool:
            report, _ = listener.reports().get(("collector", 3), (None, 0.0))
            return report is not None and (("tidy",), before + 2) in report.samples["whimbrel_job_failures_total"]

        until(is_heard)
    report, age_s = listener.reports()["collector", 3]
    assert report.started_s == pytest.approx(time.time(), abs=60)
    assert is_up(age_s)
    assert report.samples["whimbrel_process_resident_memory_bytes"][0][1] > 10 * 2**20  # type: ignore[operator]
    assert report.samples["whimbrel_process_cpu_seconds_total"][0][1] > 0  # type: ignore[operator]
    assert not is_up(SILENT_S + 1)


def test_telling_leaves_nothing_in_redis(settings: Settings, client: redis.Redis, listener: Listener) -> None:
    with metric_reports.publishing(lambda: connect(settings), Reporter("worker")):
        until(lambda: ("worker", 0) in listener.reports())
    assert client.keys("*") == []


def test_at_the_memory_limit_it_is_heard_all_the_same(
    settings: Settings, client: redis.Redis, listener: Listener
) -> None:
    client.config_set("maxmemory", 1)
    with metric_reports.publishing(lambda: connect(settings), Reporter("worker")):
        until(lambda: ("worker", 0) in listener.reports())


def test_what_is_no_report_costs_nothing(settings: Settings, client: redis.Redis, listener: Listener) -> None:
    other_release = msgspec.msgpack.encode(["worker", 0, "9.9"])
    with metric_reports.publishing(lambda: connect(settings), Reporter("api")):
        until(lambda: ("api", 0) in listener.reports())
        for nonsense in (b"", b"\xff", other_release):
            client.publish(shared_state.METERS, nonsense)
        seen = listener.reports()["api", 0][0]
        until(lambda: listener.reports()["api", 0][0] is not seen)
    assert list(listener.reports()) == [("api", 0)]


def test_a_redis_that_comes_back_is_told_and_heard_again(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    listener = Listener(lambda: connect(settings))
    listener.start()
    try:
        with metric_reports.publishing(lambda: connect(settings), Reporter("query")):
            until(lambda: ("query", 0) in listener.reports())
            own_redis.kill()
            until(lambda: listener.reports()["query", 0][1] > 0.2)
            own_redis.start()
            until(lambda: listener.reports()["query", 0][1] < 0.1)
    finally:
        listener.stop()


def test_a_report_survives_the_way(settings: Settings) -> None:
    report = Reporter("api").report()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=Report) == report
