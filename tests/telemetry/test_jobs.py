"""RQ runs Whimbrel's own jobs and no others, whoever writes into its queue."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

import worker.jobs
from telemetry import jobs
from telemetry.jobs import AllowedJob, persist_queue


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """RQ's worker takes signals for itself and keeps them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def strange_queue(client: redis.Redis) -> Queue:
    """The same queue in the hands of somebody who doesn't know what is allowed."""
    return Queue(jobs.PERSIST_QUEUE, connection=client, serializer=JSONSerializer)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that were saved, in place of saving."""
    shards: list[int] = []
    monkeypatch.setattr(worker.jobs, "save_shard", shards.append)
    return shards


def run(client: redis.Redis) -> tuple[int, int]:
    """Run all waiting jobs as the worker program does; how many RQ counts as done, and as failed."""
    running = SimpleWorker([persist_queue(client)], connection=client, serializer=JSONSerializer, job_class=AllowedJob)
    running.work(burst=True, logging_level="CRITICAL")
    done, bad = client.hmget(running.key, "successful_job_count", "failed_job_count")
    return int(done or 0), int(bad or 0)


def failed(client: redis.Redis, job: Job) -> str:
    """Why a job failed, as RQ keeps it."""
    queue = persist_queue(client)
    assert queue.failed_job_registry.get_job_ids() == [job.id]
    assert len(queue) == 0
    result = AllowedJob.fetch(job.id, connection=client, serializer=JSONSerializer).latest_result()
    assert result is not None
    return str(result.exc_string)


def test_an_allowed_job_runs(client: redis.Redis, saved: list[int]) -> None:
    queue = persist_queue(client)
    jobs.enqueue_save(queue, 3, 7)
    assert queue.get_job_ids() == ["persist-3-7"]
    assert run(client) == (1, 0)
    assert saved == [3]
    assert queue.failed_job_registry.get_job_ids() == []


def test_a_sign_of_life_is_allowed(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(worker.jobs, "say_alive", lambda: called.append(True))
    jobs.enqueue_alive(persist_queue(client), 1)
    assert run(client) == (1, 0)
    assert called == [True]


@pytest.mark.parametrize("function", ["os.system", "worker.jobs.prepare", "worker.jobs.save_shard.__call__"])
def test_any_other_function_is_refused_and_counted(
    client: redis.Redis, strange_queue: Queue, saved: list[int], tmp_path: Path, function: str
) -> None:
    proof = tmp_path / "proof"
    job = strange_queue.enqueue_call(function, args=(f"touch {proof}",))
    jobs.enqueue_save(persist_queue(client), 0, 1)
    assert run(client) == (1, 1)
    assert not proof.exists()
    assert f"{function} is not one of Whimbrel's jobs" in failed(client, job)
    assert saved == [0], "the jobs behind it run"


def test_a_method_of_an_object_is_refused(client: redis.Redis, strange_queue: Queue) -> None:
    job = Job.create(jobs.SAVE_SHARD, connection=client, serializer=JSONSerializer)
    job.data = json.dumps([jobs.SAVE_SHARD, "an object", [0], {}]).encode()
    strange_queue.enqueue_job(job)
    assert run(client) == (0, 1)
    assert "is not one of Whimbrel's jobs" in failed(client, job)


def test_a_pickled_job_is_not_read(client: redis.Redis, saved: list[int]) -> None:
    job = Queue(jobs.PERSIST_QUEUE, connection=client).enqueue_call(jobs.SAVE_SHARD, args=(0,))
    assert run(client) == (0, 1)
    assert saved == []
    assert "DeserializationError" in failed(client, job)


@pytest.mark.parametrize("when", ["success", "failure", "stopped"])
def test_a_job_with_callbacks_is_refused_and_they_do_not_run(
    client: redis.Redis, strange_queue: Queue, saved: list[int], tmp_path: Path, when: str
) -> None:
    proof = tmp_path / "proof"
    job = Job.create(jobs.SAVE_SHARD, args=(str(proof),), connection=client, serializer=JSONSerializer)
    setattr(job, f"_{when}_callback_name", f"{__name__}.harm")
    strange_queue.enqueue_job(job)
    assert run(client) == (0, 1)
    assert saved == []
    assert not proof.exists()
    assert "have no callbacks" in failed(client, job)


def harm(job: Job, _connection: redis.Redis, *_what: object) -> None:
    """What a callback would do: it leaves a proof that it ran."""
    Path(job.args[0]).touch()
