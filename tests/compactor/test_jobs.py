"""The archive's jobs through real RQ, as the worker runs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from compactor import jobs as compactor_jobs
from telemetry.archive.operations import commits
from telemetry.archive.schema import columns
from telemetry.archive.table import Archive, commit_number
from telemetry.config.settings import Settings
from telemetry.coordination import job_queue
from telemetry.coordination.job_queue import persist_queue
from telemetry.hot_store.entry_codec import Block
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import WhimbrelError
from telemetry.model.record import Record, Stored
from telemetry.model.utc import DAY_US, day_of
from telemetry.system import clock
from tests.conftest import RedisServer, settings_of
from worker.rq_worker import rq_worker


@pytest.fixture(autouse=True)
def prepared(settings: Settings) -> Iterator[None]:
    """This process is a worker for a while."""
    job_queue.prepare(settings)
    yield
    job_queue._settings.clear()
    compactor_jobs._work.clear()


def add(archive: Archive, days_ago: int, files: int) -> None:
    at_us = clock.now_us() - days_ago * DAY_US
    for number in range(files):
        table = archive.open()
        commit = commit_number(archive.committed(table, 0))
        one = Stored("a", number + 1, at_us // 1_000, Record(at_us, "tcp", "json"))
        commits.commit(
            archive, table, archive.data_files.write(columns([Block.of(one)]), commit), 0, commit, clock.now_ms()
        )


def run(client: redis.Redis) -> None:
    queue = persist_queue(client)
    worker = rq_worker(client)
    worker.work(burst=True, logging_level="ERROR")
    assert queue.failed_job_registry.count == 0


@pytest.mark.usefixtures("shard")
def test_a_look_merges_what_is_due(client: redis.Redis, archive: Archive) -> None:
    add(archive, 3, 9)
    job_queue.enqueue_compact(persist_queue(client), 1)
    run(client)
    assert [file.rows for file in archive.live(archive.open())] == [9]


def test_retention_then_sweep(
    shared_redis: RedisServer, shard: Shard, client: redis.Redis, archive: Archive, tmp_path: Path
) -> None:
    job_queue.prepare(settings_of(shared_redis.url, tmp_path, archive__retention_days="2", archive__grace_seconds="1"))
    add(archive, 3, 2)
    add(archive, 1, 1)
    client.set(shard.keys.committed, archive.committed(archive.open(), 0))
    for tick in (1, 2, 3):
        job_queue.enqueue_tidy(persist_queue(client), tick)
        run(client)
        time.sleep(1.1)
        if tick == 1:
            assert len(archive.live(archive.open())) == 3, "whether the clock was just set, the first look can't tell"
    [left] = archive.live(archive.open())
    assert left.day == day_of(clock.now_us()) - timedelta(days=1)
    assert [str(path) for path in archive.root.glob("date=*/*.parquet")] == [left.path]
    assert shard.state().intent is None


def test_beside_an_older_log_no_file_is_deleted(
    shared_redis: RedisServer, shard: Shard, client: redis.Redis, archive: Archive, tmp_path: Path
) -> None:
    """The log was restored and does not name the newest file, which may be all that is left of its records."""
    job_queue.prepare(settings_of(shared_redis.url, tmp_path, archive__grace_seconds="1"))
    add(archive, 1, 1)
    log = archive.root / "_delta_log"
    old = sorted(log.glob("*.json"))
    add(archive, 1, 1)
    client.set(shard.keys.committed, archive.committed(archive.open(), 0))
    for entry in set(log.glob("*.json")) - set(old):
        entry.unlink()
    for tick in (1, 2, 3):
        job_queue.enqueue_tidy(persist_queue(client), tick)
        run(client)
        time.sleep(1.1)
    assert len(archive.unlisted(archive.open())) == 1
    client.set(shard.keys.committed, archive.committed(archive.open(), 0))
    for tick in (4, 5):
        job_queue.enqueue_tidy(persist_queue(client), tick)
        run(client)
        time.sleep(1.1)
    assert not archive.unlisted(archive.open()), "as any file that no table names"


def test_without_a_worker_there_is_no_job() -> None:
    job_queue._settings.clear()
    with pytest.raises(WhimbrelError, match="not a worker"):
        compactor_jobs.compact()
