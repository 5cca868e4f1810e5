"""RQ runs Whimbrel's own jobs and no others, whoever writes into its queue."""

from __future__ import annotations

import json
import logging
import signal
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Callback, Queue, Repeat, Retry, Webhook
from rq.command import send_shutdown_command
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.suspension import suspend

import worker.jobs
from telemetry.coordination import job_allowlist, job_queue, shared_state
from telemetry.coordination.job_allowlist import AllowedJob
from telemetry.coordination.job_queue import persist_queue
from worker.rq_worker import rq_worker


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
    return Queue(job_allowlist.QUEUE, connection=client, serializer=JSONSerializer)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that were saved, in place of saving."""
    shards: list[int] = []
    monkeypatch.setattr(worker.jobs, "save_shard", shards.append)
    return shards


def run(client: redis.Redis) -> tuple[int, int]:
    """Run all waiting jobs as the worker program does; how many RQ counts as done, and as failed."""
    running = rq_worker(client)
    running.work(burst=True, logging_level="CRITICAL")
    done, bad = client.hmget(running.key, "successful_job_count", "failed_job_count")
    return int(done or 0), int(bad or 0)


def test_an_allowed_job_runs(client: redis.Redis, saved: list[int]) -> None:
    queue = persist_queue(client)
    job_queue.enqueue_save(queue, 3, 7)
    assert queue.get_job_ids() == ["persist-3-7"]
    assert run(client) == (1, 0)
    assert saved == [3]
    assert queue.failed_job_registry.get_job_ids() == []
    assert shared_state.refused(client) == {}


def test_a_sign_of_life_is_allowed(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(worker.jobs, "say_alive", lambda: called.append(True))
    job_queue.enqueue_alive(persist_queue(client), 1)
    assert run(client) == (1, 0)
    assert called == [True]


class Listed(redis.Redis):
    """A client that lists its commands, but for those of pipelines, which wait for the disk together."""

    commands: list[str]

    def execute_command(self, *words: Any, **options: Any) -> Any:
        self.commands.append(words[0])
        return super().execute_command(*words, **options)  # type: ignore[no-untyped-call]


def test_a_job_waits_for_the_disk_a_few_times_only(client: redis.Redis, saved: list[int]) -> None:
    """Each command that writes does so, however little it writes, and Redis answers nobody meanwhile."""
    listed = Listed(connection_pool=client.connection_pool)
    listed.commands = []
    job_queue.enqueue_save(persist_queue(listed), 3, 7)
    running = rq_worker(listed)
    running.bootstrap(logging_level="CRITICAL")
    found = running.dequeue_job_and_maintain_ttl(1)
    assert found is not None
    listed.commands.clear()
    running.execute_job(*found)
    running.heartbeat()
    assert running.dequeue_job_and_maintain_ttl(None) is None
    assert saved == [3]
    assert listed.commands.count("HSET") == 2, "that the job lives, and that the worker is idle"
    assert not {"EXPIRE", "SADD", "ZADD", "PERSIST", "LREM", "DEL"} & {*listed.commands}


def test_every_allowed_function_is_there() -> None:
    for name in job_allowlist.ALLOWED:
        job = AllowedJob(connection=redis.Redis(), serializer=JSONSerializer)
        job._data = json.dumps([name, None, [], {}]).encode()
        assert job.func.__module__ + "." + job.func.__name__ == name


def check_refused(
    client: redis.Redis, saved: list[int], caplog: pytest.LogCaptureFixture, tmp_path: Path, why: str, job_id: str
) -> None:
    """See that the job of the queue is refused, counted once and told in one line, and that those behind it run."""
    job_queue.enqueue_save(persist_queue(client), 0, 1)
    with caplog.at_level(logging.WARNING, "telemetry.coordination.job_allowlist"):
        assert run(client) == (1, 0)
        assert run(client) == (0, 0)
    assert saved == [0]
    assert not (tmp_path / "proof").exists()
    [said] = caplog.messages
    assert said.startswith("rejected job ")
    assert why in said
    assert len(said) < 300
    assert shared_state.refused(client) == {"job-not-allowed": 1}
    assert not client.exists(Job.key_for(job_id))


@pytest.mark.parametrize(
    "function", ["os.system", "worker.jobs.prepare", "worker.jobs.save_shard.__call__", "subprocess.run", "", "x" * 400]
)
def test_any_other_function_is_refused(
    client: redis.Redis,
    strange_queue: Queue,
    saved: list[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    function: str,
) -> None:
    job = strange_queue.enqueue_call(function, args=(f"touch {tmp_path}/proof",), timeout=60)
    check_refused(client, saved, caplog, tmp_path, "is not one of Whimbrel's jobs", job.id)


PAYLOADS = {
    "a method of an object": ([job_allowlist.SAVE_SHARD, "an object", [0], {}], "is not one of Whimbrel's jobs"),
    "named arguments": ([job_allowlist.SAVE_SHARD, None, [], {"number": 0}], "takes 1 integers"),
    "too many arguments": ([job_allowlist.SAVE_SHARD, None, [0, 0], {}], "takes 1 integers"),
    "an argument for none": ([job_allowlist.TIDY, None, [0], {}], "takes 0 integers"),
    "a text for a number": ([job_allowlist.SAVE_SHARD, None, ["0"], {}], "takes 1 integers"),
    "true for a number": ([job_allowlist.SAVE_SHARD, None, [True], {}], "takes 1 integers"),
    "too few parts": ([job_allowlist.SAVE_SHARD, None, [0]], "is not [function"),
    "no list": ({"func": job_allowlist.SAVE_SHARD}, "is not [function"),
    "a number for a name": ([1, None, [0], {}], "is not [function"),
    "huge arguments": ([job_allowlist.SAVE_SHARD, None, [0] * 1_000_000, {}], "bytes"),
    "nested without end": ("[" * 100_000, "more than 512 bytes"),
}


@pytest.mark.parametrize(("payload", "why"), PAYLOADS.values(), ids=PAYLOADS)
def test_a_payload_of_another_shape_is_refused(
    client: redis.Redis,
    strange_queue: Queue,
    saved: list[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    payload: object,
    why: str,
) -> None:
    job = Job.create(job_allowlist.SAVE_SHARD, connection=client, serializer=JSONSerializer, timeout=60)
    job.data = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
    strange_queue.enqueue_job(job)
    check_refused(client, saved, caplog, tmp_path, why, job.id)


class Harm:
    """Unpickled, it leaves a proof."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.proof,)


def test_a_pickled_job_is_not_read(
    client: redis.Redis, saved: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pickling = Queue(job_allowlist.QUEUE, connection=client)
    job = pickling.enqueue_call(job_allowlist.SAVE_SHARD, args=(Harm(tmp_path / "proof"),), timeout=60)
    check_refused(client, saved, caplog, tmp_path, "is not [function", job.id)


def harm(job: Job, _connection: redis.Redis, *_what: object) -> None:
    """What a callback would do: it leaves a proof that it ran."""
    Path(job.args[0]).touch()


EXTRAS: dict[str, dict[str, Any]] = {
    "on_success": {"on_success": Callback(harm)},
    "on_failure": {"on_failure": Callback(harm)},
    "on_stopped": {"on_stopped": Callback(harm)},
    "webhooks": {"webhooks": [Webhook("http://127.0.0.1:9/", job_status="finished")]},
    "retry": {"retry": Retry(max=1_000_000)},
    "repeat": {"repeat": Repeat(times=1_000_000)},
    "meta": {"meta": {"a": 1}},
    "timeout": {"timeout": -1},
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_a_job_with_more_than_a_call_is_refused(
    client: redis.Redis,
    strange_queue: Queue,
    saved: list[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    extra: dict[str, Any],
) -> None:
    job = strange_queue.enqueue_call(job_allowlist.SAVE_SHARD, args=(0,), **{"timeout": 60, **extra})
    why = "its timeout" if "timeout" in extra else "which Whimbrel's jobs do not have"
    check_refused(client, saved, caplog, tmp_path, why, job.id)


def call() -> bytes:
    return zlib.compress(json.dumps([job_allowlist.SAVE_SHARD, None, [0], {}]).encode())


GOOD = {"data": call(), "origin": job_allowlist.QUEUE, "timeout": 60, "status": "queued"}
HASHES: dict[str, tuple[dict[str, object], str]] = {
    "a field that RQ does not know": (GOOD | {"job_class": "os.system"}, "job_class"),
    "another queue's": (GOOD | {"origin": "default"}, "its origin"),
    "a date that is none": (GOOD | {"created_at": "soon"}, "soon"),
    "a status that is none": (GOOD | {"status": "x"}, "x"),
    "a number that is none": (GOOD | {"ttl": "x"}, "x"),
    "a long field": (GOOD | {"description": "x" * 10_000}, "its description has 10000 bytes"),
    "not compressed": (GOOD | {"data": json.dumps([job_allowlist.SAVE_SHARD, None, [0], {}])}, "not compressed"),
    "something behind the payload": (GOOD | {"data": call() + b"more"}, "more than 512 bytes, or is truncated"),
    "a payload cut off": (GOOD | {"data": call()[:-5]}, "truncated"),
    "a payload that inflates to a megabyte": (GOOD | {"data": zlib.compress(b" " * 1_000_000)}, "more than 512 bytes"),
    "a name of a field that is no text": (GOOD | {b"\xff": "1"}, "can't decode"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(("fields", "why"), HASHES.values(), ids=HASHES)
def test_a_hash_of_another_kind_is_refused(
    client: redis.Redis,
    saved: list[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, object],
    why: str,
) -> None:
    client.hset(Job.key_for("strange"), mapping=fields)  # type: ignore[arg-type]
    client.rpush(persist_queue(client).key, "strange")
    check_refused(client, saved, caplog, tmp_path, why, "strange")


def test_a_job_that_is_no_hash_is_refused(
    client: redis.Redis, saved: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.set(Job.key_for("strange"), "text")
    client.rpush(persist_queue(client).key, "strange")
    check_refused(client, saved, caplog, tmp_path, "WRONGTYPE", "strange")


def test_an_id_that_is_none_is_refused(
    client: redis.Redis, saved: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.rpush(persist_queue(client).key, "../an id")
    check_refused(client, saved, caplog, tmp_path, "Job ID", "../an id")


def test_an_id_that_is_no_text_costs_one_start(client: redis.Redis, saved: list[int]) -> None:
    """RQ ends at it, and would again at each start; the worker that is started next forgets it."""
    client.rpush(persist_queue(client).key, b"\xff")
    job_queue.enqueue_save(persist_queue(client), 0, 1)
    assert run(client) == (0, 0)
    assert run(client) == (1, 0)
    assert saved == [0]


def test_a_payload_with_time_to_live_that_ran_out_is_no_refusal(client: redis.Redis, saved: list[int]) -> None:
    client.hset(Job.key_for("late"), "last_heartbeat", "")
    client.rpush(persist_queue(client).key, "late")
    job_queue.enqueue_save(persist_queue(client), 0, 1)
    assert run(client) == (1, 0)
    assert shared_state.refused(client) == {}


def test_a_job_of_the_failed_is_asked_for_again(
    client: redis.Redis, saved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at like any other: ours runs again, another one is refused."""
    queue = persist_queue(client)

    def fail(_shard: int) -> None:
        raise OSError("no room")

    monkeypatch.setattr(worker.jobs, "save_shard", fail)
    job_queue.enqueue_save(queue, 3, 7)
    assert run(client) == (0, 1)
    monkeypatch.setattr(worker.jobs, "save_shard", saved.append)
    queue.failed_job_registry.requeue("persist-3-7")
    assert run(client) == (1, 0)
    assert saved == [3]


def test_another_job_of_the_failed_is_refused_when_it_is_asked_for_again(
    client: redis.Redis, strange_queue: Queue, saved: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = strange_queue.enqueue_call("os.system", args=(f"touch {tmp_path}/proof",), timeout=60)
    client.delete(strange_queue.key)
    job.set_status(JobStatus.FAILED)
    strange_queue.failed_job_registry.add(job, ttl=60)
    strange_queue.failed_job_registry.requeue(job.id)
    check_refused(client, saved, caplog, tmp_path, "os.system", job.id)


def test_other_queues_and_jobs_for_later_are_not_served(
    client: redis.Redis, strange_queue: Queue, tmp_path: Path
) -> None:
    other = Queue("default", connection=client, serializer=JSONSerializer)
    other.enqueue_call("os.system", args=(f"touch {tmp_path}/proof",))
    strange_queue.enqueue_in(timedelta(seconds=-5), "os.system", f"touch {tmp_path}/proof")
    assert run(client) == (0, 0)
    assert not (tmp_path / "proof").exists()
    assert other.count == 1


def test_a_job_left_half_done_has_no_failure_callback_called(
    client: redis.Redis, strange_queue: Queue, saved: list[int], tmp_path: Path
) -> None:
    """RQ fails a job whose worker died, and calls what the job names for it."""
    proof = tmp_path / "proof"
    job = Job.create(
        job_allowlist.SAVE_SHARD,
        args=(str(proof),),
        on_failure=Callback(harm),
        connection=client,
        serializer=JSONSerializer,
        origin=job_allowlist.QUEUE,
        status=JobStatus.STARTED,
    )
    job.save()
    running = rq_worker(client)
    client.zadd(strange_queue.started_job_registry.key, {f"{job.id}:x": 1})
    running.work(burst=True, logging_level="CRITICAL")
    assert not proof.exists()
    assert shared_state.refused(client) == {"job-not-allowed": 1}


def test_the_worker_can_be_neither_suspended_nor_stopped_over_redis(client: redis.Redis, saved: list[int]) -> None:
    suspend(client)
    job_queue.enqueue_save(persist_queue(client), 0, 1)
    running = rq_worker(client)
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    running.register_birth()  # type: ignore[no-untyped-call]
    running.subscribe()
    send_shutdown_command(client, running.name)
    assert client.pubsub_numsub(running.pubsub_channel_name) == [(running.pubsub_channel_name.encode(), 0)]
    running.register_death()  # type: ignore[no-untyped-call]
    assert run(client) == (1, 0)
    assert saved == [0]
    assert heard == []


def test_a_refusal_that_cannot_be_counted_is_a_refusal(
    client: redis.Redis, strange_queue: Queue, saved: list[int], tmp_path: Path
) -> None:
    client.set(shared_state.REFUSED, "not a hash")
    strange_queue.enqueue_call("os.system", args=(f"touch {tmp_path}/proof",), timeout=60)
    assert run(client) == (0, 0)
    assert not (tmp_path / "proof").exists()
