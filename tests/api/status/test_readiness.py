"""Liveness and readiness: each fault is reported, and no longer reported when it is repaired."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from api.status import readiness
from api.status.readiness import Health
from telemetry import RELEASE_DATE_US
from telemetry.archive.operations import commits
from telemetry.archive.table import Archive, commit_number
from telemetry.coordination import shared_state
from telemetry.hot_store import shard as hot
from telemetry.hot_store.entry_codec import Entry, Intent, pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard, State
from telemetry.model.record import Sent
from telemetry.system import clock
from telemetry.system.disk_space import Room
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.conftest import RedisServer, running_redis
from worker.recovery import recover
from worker.saving.saver import Saver

AT_US = 1_769_250_300_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis server whose settings these tests may change."""
    with running_redis() as found:
        yield found


@pytest.fixture(scope="module")
def started(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_on(server.url, tmp_path_factory.mktemp("health")) as found:
        yield found


@pytest.fixture
def box(started: Box) -> Iterator[Box]:
    """A box that is ready before the test, and again after it if the test has repaired its faults."""
    say_alive(started)
    assert_ready(started)
    yield started
    say_alive(started)
    assert_ready(started)


def say_alive(box: Box, ago_s: float = 0) -> None:
    for program in (shared_state.WORKER, shared_state.SCHEDULER):
        shared_state.write_heartbeat(box.client, program, time.time() - ago_s)


def reasons(box: Box) -> list[str]:
    """Why the box is not ready."""
    answer = box.http.get("/readyz")
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found) == ["status", "reasons"]
    assert answer.status_code == (503 if found["reasons"] else 200)
    assert found["status"] == ("not ready" if found["reasons"] else "ready")
    return found["reasons"]  # type: ignore[no-any-return]


def assert_ready(box: Box) -> None:
    assert reasons(box) == []


def the_reason(box: Box) -> str:
    [found] = reasons(box)
    return found


def test_alive(box: Box) -> None:
    answer = box.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})
    assert box.http.head("/healthz").status_code == 200
    assert box.http.head("/readyz").status_code == 200
    assert_problem(box.http.post("/readyz"), 405, "wrong-method")


def test_worker_and_scheduler_were_never_seen(box: Box) -> None:
    box.client.delete(shared_state.ALIVE)
    worker, scheduler = reasons(box)
    assert "worker" in worker
    assert "scheduler" in scheduler
    shared_state.write_heartbeat(box.client, shared_state.WORKER, time.time())
    assert the_reason(box) == scheduler


def test_worker_and_scheduler_were_not_seen_lately(box: Box) -> None:
    say_alive(box, ago_s=readiness.SILENT_S + 5)
    worker, scheduler = reasons(box)
    assert str(readiness.SILENT_S) in worker
    assert "scheduler" in scheduler
    say_alive(box, ago_s=readiness.SILENT_S - 10)
    assert_ready(box)


def test_a_sign_of_life_from_the_future_is_none(box: Box) -> None:
    say_alive(box, ago_s=-readiness.SILENT_S - 5)
    assert len(reasons(box)) == 2


@pytest.mark.parametrize(
    ("name", "wrong", "right", "named"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy is allkeys-lru, must be noeviction"),
        ("appendonly", "no", "yes", "appendonly is no, must be yes"),
        ("appendfsync", "everysec", "always", "appendfsync is everysec, must be always"),
    ],
)
def test_a_setting_of_redis_that_loses_records(box: Box, name: str, wrong: str, right: str, named: str) -> None:
    box.client.config_set(name, wrong)
    try:
        assert named in the_reason(box)
    finally:
        box.client.config_set(name, right)


def test_all_that_is_wrong_is_said_at_once(box: Box) -> None:
    box.client.config_set("maxmemory-policy", "allkeys-lru")
    box.client.delete(shared_state.ALIVE)
    try:
        said = reasons(box)
        assert len(said) == 3
        for word in ("maxmemory-policy", "worker", "scheduler"):
            assert any(word in reason for reason in said)
    finally:
        box.client.config_set("maxmemory-policy", "noeviction")


def test_memory_above_the_mark(box: Box) -> None:
    used = int(box.client.info("memory")["used_memory"])
    box.client.config_set("maxmemory", used)
    try:
        assert "memory limit" in the_reason(box)
        box.client.config_set("maxmemory", used * 2)
        assert_ready(box)
    finally:
        box.client.config_set("maxmemory", 0)


def test_an_archive_that_another_redis_wrote(box: Box) -> None:
    box.append(Sent("a", record(AT_US)))
    box.save()
    assert_ready(box)
    [shard] = box.shards
    foreign = commit_number(commit_number(shard.state().committed))
    commits.commit(box.archive, box.archive.open(), [], 0, foreign, clock.now_ms())
    said = the_reason(box)
    assert foreign in said
    assert "whimbrel recover" in said
    recover(shard, box.archive, box.connection, clock.now_ms())
    assert_ready(box)


class Killed(Exception):
    """The worker is gone."""


@pytest.mark.parametrize("step", ["intend", "read", "commit", "finish", "finish 0"])
def test_a_save_that_was_cut_off_is_no_reason(box: Box, step: str) -> None:
    def reached(name: str) -> None:
        if name == step:
            raise Killed(step)

    box.append(Sent("a", record(AT_US)))
    with pytest.raises(Killed):
        box.save(reached)
    assert_ready(box)
    box.save()


def test_a_store_that_is_not_set_up(box: Box) -> None:
    box.client.flushall()
    say_alive(box)
    assert "not set up" in the_reason(box)
    box.set_up()


def test_without_redis_it_is_alive_but_not_ready(box: Box, server: RedisServer) -> None:
    server.kill()
    for _ in range(2):
        assert "cannot reach Redis" in the_reason(box)
    assert box.http.get("/healthz").status_code == 200
    server.start()


# Without sockets -------------------------------------------------------------------------------------


@pytest.fixture
def healthy(client: redis.Redis, shard: Shard, archive: Archive) -> Health:
    for program in (shared_state.WORKER, shared_state.SCHEDULER):
        shared_state.write_heartbeat(client, program, time.time())
    return Health(client, lambda: hot.attach(client, 1), archive, "aof", 80, Room())


def test_a_look_writes_nothing(healthy: Health, client: redis.Redis) -> None:
    """It is asked every few seconds for years, and each write is an fsync."""
    healthy.reasons()
    before = client.info("persistence")["aof_current_size"]
    for _ in range(10):
        assert healthy.reasons() == []
    assert client.info("persistence")["aof_current_size"] == before


def test_a_user_who_may_run_functions_but_not_write(healthy: Health, client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, categories=["-@write"], commands=["+fcall"])
    try:
        [said] = healthy.reasons()
    finally:
        client.acl_setuser("default", enabled=True, categories=["+@all"])
    assert said.startswith("not accepting records: ")
    assert "no permissions" in said


def test_a_clock_before_the_release(healthy: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    assert healthy.reasons() == []
    monkeypatch.setattr(clock, "now_us", lambda: RELEASE_DATE_US - 1)
    [said] = healthy.reasons()
    assert "the box's clock is behind" in said
    monkeypatch.undo()
    assert healthy.reasons() == []


def test_a_clock_behind_the_newest_record(
    healthy: Health, shard: Shard, saver: Callable[[], Saver], monkeypatch: pytest.MonkeyPatch
) -> None:
    append_batches(shard, [Batch(pack_one())], Limits())
    assert healthy.reasons() == []
    early_us = clock.now_us() - 60_000_000
    monkeypatch.setattr(clock, "now_us", lambda: early_us)
    [said] = healthy.reasons()
    assert "the box's clock is behind the newest stored record" in said
    monkeypatch.undo()
    saver().save(shard)
    monkeypatch.setattr(clock, "now_us", lambda: early_us)
    assert len(healthy.reasons()) == 1, "it is known still when all is saved"


def pack_one() -> list[Entry]:
    return pack([Sent("a", record(AT_US))])


class Scripted(Shard):
    """A shard whose states, as they are asked for, were laid down."""

    def __init__(self, shard: Shard, states: list[State]) -> None:
        super().__init__(shard.client, shard.shard, shard.store_id, shard.shards)
        self._states = states

    def state(self) -> State:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def test_a_save_that_ends_while_it_is_looked_at_is_no_reason(
    client: redis.Redis, shard: Shard, archive: Archive, healthy: Health, saver: Callable[[], Saver]
) -> None:
    """Redis is asked before the archive; between the two a save may begin and be committed."""
    before = shard.state()
    append_batches(shard, [Batch(pack_one())], Limits())
    saver().save(shard)
    committed = shard.state().committed
    during = before._replace(intent=Intent(committed, []).encode())
    for states in ([before, during], [during, during], [before, shard.state()], [during, shard.state()]):
        looking = Health(client, lambda states=states: [Scripted(shard, states)], archive, "aof", 80, Room())  # type: ignore[misc]
        assert looking.reasons() == []
    assert healthy.reasons() == []


@pytest.fixture
def saver(archive: Archive, connection: object) -> Callable[[], Saver]:
    return lambda: Saver(archive, connection, clock.now_ms)  # type: ignore[arg-type]
