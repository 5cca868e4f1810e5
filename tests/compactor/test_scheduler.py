"""When a shard is due, and what the clock enqueues, with real RQ."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, tzinfo

import pytest
import redis
from apscheduler.executors import base as executors
from apscheduler.schedulers import base as schedulers

from compactor import scheduler as clock_module
from compactor.scheduler import ALIVE_TICKS, DELETE_TICKS, Clock, Due, scheduler
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination import job_allowlist, job_queue, shared_state
from telemetry.coordination.job_queue import persist_queue
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.shard import Flush, Shard, Waiting
from telemetry.model.errors import StoreUnavailable
from telemetry.system import clock as box_clock
from tests.worker.conftest import Ledger
from worker import jobs as worker_jobs
from worker.rq_worker import rq_worker
from worker.saving.saver import Saver

WAIT_S = 20


class Hands:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


FLUSH = Flush(10, 2_000)


def waiting(records: int, size_bytes: int = 0) -> Waiting:
    return Waiting(records, size_bytes, 1)


def test_a_full_shard_is_due_at_once() -> None:
    due = Due(FLUSH, flush_seconds=30)
    assert not due.is_due(0, waiting(9), 0.0)
    assert due.is_due(0, waiting(10), 0.1)


def test_a_shard_with_many_bytes_is_due_at_once() -> None:
    due = Due(FLUSH, flush_seconds=30)
    assert not due.is_due(0, waiting(1, 1_999), 0.0)
    assert due.is_due(0, waiting(1, 2_000), 0.1)


def test_a_shard_that_waits_is_due_after_its_time_and_not_again_at_once() -> None:
    due = Due(FLUSH, flush_seconds=30)
    assert [due.is_due(0, waiting(1), second) for second in (0.0, 29.0, 30.0, 31.0, 60.0)] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_an_empty_shard_forgets_how_long_it_waited() -> None:
    due = Due(FLUSH, flush_seconds=30)
    assert not due.is_due(0, waiting(1), 0.0)
    assert not due.is_due(0, waiting(0), 29.0)
    assert not due.is_due(0, waiting(1), 31.0)
    assert due.is_due(0, waiting(1), 61.0)


def test_shards_wait_each_for_itself() -> None:
    due = Due(FLUSH, flush_seconds=30)
    assert not due.is_due(0, waiting(1), 0.0)
    assert not due.is_due(1, waiting(1), 20.0)
    assert due.is_due(0, waiting(1), 30.0)
    assert not due.is_due(1, waiting(1), 30.0)


def test_a_tick_enqueues_what_is_due_and_asks_for_signs_of_life(shard: Shard, client: redis.Redis) -> None:
    queue, hands = persist_queue(client), Hands()
    clock = Clock(lambda: [shard], queue, Due(Flush(1, 2**20), 30), hands)
    clock.tick()
    assert [job.func_name for job in queue.jobs] == [job_allowlist.TIDY, job_allowlist.COMPACT, job_allowlist.SAY_ALIVE]
    queue.empty()  # type: ignore[no-untyped-call]
    clock.tick()
    assert queue.jobs == []
    Ledger().append(shard, ["a"])
    clock.tick()
    assert [job.func_name for job in queue.jobs] == [job_allowlist.SAVE_SHARD, job_allowlist.COMPACT]
    assert list(queue.jobs[0].args) == [0]
    assert shared_state.SCHEDULER in shared_state.heartbeats(client)


def test_a_deletion_is_begun_at_once_and_gone_on_with(shard: Shard, client: redis.Redis) -> None:
    queue = persist_queue(client)
    clock = Clock(lambda: [shard], queue, Due(Flush(100, 2**20), 30), Hands())
    clock.tick()
    Ledger().append(shard, ["a", "b"])
    for device in ("a", "b"):
        assert deletions.ask(shard, device)
    found = []
    for _ in range(2 * DELETE_TICKS + 1):
        queue.empty()  # type: ignore[no-untyped-call]
        clock.tick()
        found += [job.args for job in queue.jobs if job.func_name == job_allowlist.DELETE_DEVICES]
    assert [list(args) for args in found] == [[0]] * 3


def test_a_worker_that_is_away_is_not_buried_in_jobs(shard: Shard, client: redis.Redis) -> None:
    queue = persist_queue(client)
    clock = Clock(lambda: [shard], queue, Due(Flush(1, 2**20), 30), Hands())
    Ledger().append(shard, ["a"])
    for _ in range(5 * ALIVE_TICKS):
        clock.tick()
    assert queue.count <= 8


def test_under_backlog_retention_and_sweep_are_not_skipped(
    shard: Shard, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that takes no job for some ticks of each 40, and the rest of the time no more than come."""
    monkeypatch.setattr(clock_module, "TIDY_TICKS", 20)
    queue, taken = persist_queue(client), list[str]()
    clock = Clock(lambda: [shard], queue, Due(Flush(1, 2**20), 30), Hands())
    Ledger().append(shard, ["a"])
    for tick in range(800):
        clock.tick()
        if tick % 40 >= 8 and (job_id := queue.pop_job_id()) is not None:
            taken.append(job_id)
        assert sum(job_id.startswith("tidy") for job_id in queue.job_ids) <= 1
    assert sum(job_id.startswith("tidy") for job_id in taken) == 800 // 20


def test_under_a_backlog_without_end_retention_and_sweep_come_first(shard: Shard, client: redis.Redis) -> None:
    queue = persist_queue(client)
    for number in range(50):
        job_queue.enqueue_save(queue, 0, number)
    Clock(lambda: [shard], queue, Due(Flush(1, 2**20), 30), Hands()).tick()
    assert [job.func_name for job in queue.jobs[:2]] == [job_allowlist.TIDY, job_allowlist.SAVE_SHARD]
    assert client.ttl(queue.jobs[0].key) > job_queue.WAITING_TTL_S, "it outlives a job that takes long"


def test_a_sign_of_life_that_a_backlog_prevented_is_asked_for_as_soon_as_it_is_over(
    shard: Shard, client: redis.Redis
) -> None:
    queue = persist_queue(client)
    clock = Clock(lambda: [shard], queue, Due(Flush(100, 2**20), 30), Hands())
    for number in range(50):
        job_queue.enqueue_save(queue, 0, number)
    clock.tick()
    queue.empty()  # type: ignore[no-untyped-call]
    clock.tick()
    assert [job.func_name for job in queue.jobs] == [job_allowlist.COMPACT, job_allowlist.SAY_ALIVE]


def test_a_redis_that_is_away_stops_no_clock(client: redis.Redis) -> None:
    def away() -> list[Shard]:
        raise StoreUnavailable("away")

    clock = Clock(away, persist_queue(client), Due(Flush(1, 2**20), 30), Hands())
    clock.tick()
    assert persist_queue(client).count == 0


def test_while_the_store_is_not_set_up_the_worker_is_asked_to_look(client: redis.Redis) -> None:
    queue = persist_queue(client)
    clock = Clock(lambda: hot.attach(client, 1), queue, Due(Flush(1, 2**20), 30), Hands())
    for _ in range(3):
        clock.tick()
    assert [job.func_name for job in queue.jobs] == [job_allowlist.SAY_ALIVE]


def test_a_job_saves_through_rq(shard: Shard, client: redis.Redis, archive: Archive, settings: Settings) -> None:
    """The worker as it is wired, but for its process."""
    db = open_duckdb()
    work = worker_jobs.Work(client, archive, db, Saver(archive, db, box_clock.now_ms), 1, FLUSH)
    work.begin()
    worker_jobs.prepare(work)
    Ledger().append(shard, ["a", "b"])
    queue = persist_queue(connect(settings, timeout_s=None))
    job_queue.enqueue_save(queue, 0, 1)
    job_queue.enqueue_alive(queue, 2)
    worker = rq_worker(queue.connection)
    assert worker.work(burst=True)
    assert shard.unsaved() == 0
    assert shared_state.WORKER in shared_state.heartbeats(client)
    assert worker.failed_job_count == 0


# The box's clock is set while the scheduler runs -----------------------------------------------------


class Wall(datetime):
    """What APScheduler takes for the box's clock."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.ahead


class Ticks:
    """Stands where a `Clock` does, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self._ticked = threading.Semaphore(0)

    def tick(self) -> None:
        self.count += 1
        self._ticked.release()

    def come(self, count: int) -> bool:
        return all(self._ticked.acquire(timeout=WAIT_S) for _ in range(count))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (timedelta(), -timedelta(hours=1)),
        (timedelta(days=365 * 12), timedelta()),
        (-timedelta(days=365 * 56), timedelta()),
        (timedelta(), timedelta(hours=1)),
    ],
    ids=["an hour back", "back from 2038", "on from 1970", "an hour on"],
)
def test_ticks_go_on_when_the_boxs_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, first: timedelta, then: timedelta
) -> None:
    for module in (schedulers, executors, clock_module):
        monkeypatch.setattr(module, "datetime", Wall)
    monkeypatch.setattr(Wall, "ahead", first)
    ticks = Ticks()
    found = scheduler(ticks)  # type: ignore[arg-type]
    running = threading.Thread(target=found.start)
    running.start()
    try:
        assert ticks.come(1)
        Wall.ahead = then
        assert ticks.come(3)
    finally:
        found.shutdown()
        running.join()
    assert ticks.count < 10
