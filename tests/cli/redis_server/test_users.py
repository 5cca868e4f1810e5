"""Redis's users: on both servers as `whimbrel redis` starts them, and pasted into a Redis of others."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from cli.doctor import redis_access
from cli.redis_server import users
from cli.redis_server.command import find
from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.coordination import job_allowlist, job_queue, shared_state
from telemetry.coordination.redis_acl import rules
from telemetry.hot_store import function_library, shard
from telemetry.hot_store.client import check_server, connect, url, wait
from telemetry.hot_store.credentials import ADMIN, ROLES, Login, act_as, password_file, user
from telemetry.hot_store.keys import APPENDED, Keys
from telemetry.hot_store.operations.append import require_writable
from telemetry.model.errors import ConfigError, StoreUnavailable
from tests.cli.redis_server.test_command import ended, environ, serving
from tests.conftest import RedisServer, settings_of

PROGRAMS = [role for role in ROLES if role != ADMIN]


@pytest.fixture(scope="module", params=["system", "bundled"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "system" and not shutil.which("redis-server"):
        pytest.skip("no redis-server is installed on this system")
    return str(request.param)


@pytest.fixture(scope="module")
def own(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of Whimbrel's own server, which runs, with the functions loaded."""
    folder = tmp_path_factory.mktemp("own")
    with serving(folder, kind) as (_, client):
        function_library.call(client, "setup", [Keys(0).store, "x", "y"], ["id", 1, 1, 0, "0", 1])
        yield load(None, environ(folder, kind))


def of(settings: Settings, role: str) -> redis.Redis:
    return redis.Redis.from_url(url(settings), credential_provider=Login(settings, role))


def refused(client: redis.Redis, *command: object) -> bool:
    try:
        client.execute_command(*command)  # type: ignore[no-untyped-call]
    except NoPermissionError:
        return True
    except redis.ResponseError as error:
        return "command not allowed" in str(error)  # DEBUG and MODULE, whoever asks
    return False


DANGEROUS = [
    *("FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "DBSIZE", "RANDOMKEY", "SWAPDB 0 1", "SORT whimbrel:alive"),
    *("CONFIG SET maxmemory 1", "CONFIG REWRITE", "CONFIG RESETSTAT", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE", "SAVE"),
    *("BGREWRITEAOF", "BGSAVE", "MONITOR", "REPLICAOF NO ONE", "MODULE LOAD /tmp/x.so", "ACL LIST", "ACL SETUSER x"),
    *("EVAL 0 0", "EVALSHA 0 0", "SCRIPT LOAD 0", "SCRIPT FLUSH", "FUNCTION FLUSH", "FUNCTION DELETE x"),
    *("FUNCTION RESTORE x", "FUNCTION DUMP", "CLIENT LIST", "CLIENT KILL ID 1", "CLIENT PAUSE 1", "LATENCY RESET"),
    *("SLOWLOG GET", "MIGRATE h 1 k 0 1", "RESTORE k 0 x", "PUBSUB CHANNELS", "FAILOVER", "LASTSAVE"),
]


@pytest.mark.parametrize("role", PROGRAMS)
def test_no_program_may_do_what_is_dangerous(own: Settings, role: str) -> None:
    with of(own, role) as client:
        assert client.ping()
        may = [command for command in DANGEROUS if not refused(client, *command.split())]
        assert may == (["BGREWRITEAOF"] if role == "worker" else []), "it forgets devices that were deleted"


@pytest.mark.parametrize("role", PROGRAMS)
def test_only_the_worker_loads_functions_and_the_api_sees_no_settings(own: Settings, role: str) -> None:
    with of(own, role) as client:
        assert refused(client, "FUNCTION", "LOAD", "no library") == (role != "worker")
        assert refused(client, "CONFIG", "GET", "requirepass") == (role in ("query", "api", "courier"))
        check_server(client, "aof")


@pytest.mark.parametrize("role", PROGRAMS)
def test_no_program_touches_keys_or_channels_of_others(own: Settings, role: str) -> None:
    with of(own, role) as client:
        assert refused(client, "GET", "somebody's")
        assert refused(client, "SET", "somebody's", 1)
        assert refused(client, "PUBLISH", "somebody's", 1)
        assert refused(client, "COPY", "whimbrel:alive", "somebody's")
        assert not refused(client, "PUBLISH", "whimbrel:frames:van-7", 1)
        assert not refused(client, "HGETALL", shared_state.ALIVE)


def writable(settings: Settings, role: str, keys: list[str]) -> set[str]:
    with of(settings, role) as client:
        return {key for key in keys if not refused(client, "DEL", key)}


def test_who_may_write_what(own: Settings) -> None:
    k = Keys(9)
    of_saving = [k.intent, k.finishing, k.committed]
    appended = [pattern.replace("*", "9") for pattern in APPENDED]
    of_rq = ["rq:queues", f"rq:queue:{job_allowlist.QUEUE}", "rq:job:persist-0-1"]
    everything = [*of_saving, *appended, *of_rq, *shared_state.WRITERS]
    assert writable(own, "query", everything) == {shared_state.REFUSED}
    assert writable(own, "courier", everything) == {shared_state.FORWARD, shared_state.ALERT}
    assert writable(own, "scheduler", everything) == {shared_state.ALIVE, *of_rq}
    of_collector = {shared_state.REFUSED, shared_state.USED, shared_state.MQTT, shared_state.MQTT_STORED}
    assert writable(own, "collector", everything) == {*of_collector, *appended}
    of_api = {
        shared_state.REFUSED,
        shared_state.USED,
        shared_state.BOX,
        shared_state.SESSIONS,
        shared_state.SESSIONS_USED,
    }
    assert writable(own, "api", everything) == {*of_api, *appended}
    of_worker = {shared_state.ALIVE, shared_state.REFUSED}
    assert writable(own, "worker", everything) == {*of_saving, *appended, *of_rq, *of_worker}


@pytest.mark.parametrize("role", PROGRAMS)
def test_no_program_makes_itself_a_key(own: Settings, role: str) -> None:
    """Whoever takes over a program that reads strangers' bytes may not let others in."""
    with of(own, role) as client:
        for command in ("HSET {} x y", "HDEL {} x", "DEL {}", "RENAME whimbrel:alive {}", "COPY whimbrel:alive {}"):
            assert refused(client, *command.format(shared_state.KEYS).split()), command


def test_every_note_has_writers() -> None:
    keys = {
        value for name, value in vars(shared_state).items() if isinstance(value, str) and value.startswith("whimbrel:")
    }
    assert keys - {shared_state.METERS, shared_state.FRAMES, shared_state.CHANGED} == set(shared_state.WRITERS), (
        "a new key names who may change it"
    )
    assert {role for writers in shared_state.WRITERS.values() for role in writers} <= set(ROLES)


def test_nobody_else_gets_in(own: Settings) -> None:
    for credentials in ({}, {"username": "default", "password": "x"}, {"username": user("api"), "password": "x"}):
        with redis.Redis.from_url(url(own), **credentials) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_functions_that_are_missing_wait_for_the_worker(own: Settings) -> None:
    with of(own, ADMIN) as admin, of(own, "collector") as collector, of(own, "worker") as worker:
        admin.function_flush("SYNC")
        with pytest.raises(StoreUnavailable, match="the worker loads them"):
            require_writable(shard.Shard(collector, 0, "id", 1))
        require_writable(shard.Shard(worker, 0, "id", 1))
        require_writable(shard.Shard(collector, 0, "id", 1))


def test_a_job_cannot_be_put_into_the_queue_by_who_serves_clients(own: Settings) -> None:
    for role in ("api", "query", "collector", "courier"):
        with of(own, role) as client, pytest.raises(NoPermissionError):
            job_queue.enqueue_save(job_queue.persist_queue(client), 0, 1)


def test_passwords_are_their_owners_alone(tmp_path: Path, kind: str) -> None:
    with serving(tmp_path, kind) as (process, _):
        settings = load(None, environ(tmp_path, kind))
        words = [password_file(settings, role).read_text() for role in ROLES]
        assert len(set(words)) == len(ROLES)
        assert min(map(len, words)) >= 40
        private = [*(password_file(settings, role) for role in ROLES), tmp_path / "redis" / "users.acl"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
        assert stat.S_IMODE((tmp_path / "redis" / "passwords").stat().st_mode) == 0o700
        told = (tmp_path / "redis" / "users.acl").read_text() + (tmp_path / "redis" / "redis.conf").read_text()
        for name in ("cmdline", "environ"):
            told += Path(f"/proc/{process.pid}/{name}").read_text()
        ended(process)
        out, err = process.communicate()
        assert not any(word in told + out + err for word in words)


def test_passwords_last_and_an_empty_one_is_made_again(tmp_path: Path, kind: str) -> None:
    settings = load(None, environ(tmp_path, kind))
    with serving(tmp_path, kind):
        before = {role: password_file(settings, role).read_text() for role in ROLES}
    password_file(settings, "api").write_text("")
    password_file(settings, "query").unlink()
    with serving(tmp_path, kind):
        after = {role: password_file(settings, role).read_text() for role in ROLES}
        for role in ROLES:
            with of(settings, role) as client:
                assert client.ping()
    assert {role for role in ROLES if before[role] != after[role]} == {"api", "query"}


def test_a_transaction_in_the_aof_is_read_again(tmp_path: Path, kind: str) -> None:
    """The server reads its AOF as the user `default`, which must lack no right for that."""
    for expected in (None, b"1", b"2"):
        with serving(tmp_path, kind) as (process, client):
            assert client.get("whimbrel:n") == expected
            pipe = client.pipeline(transaction=True)
            pipe.incr("whimbrel:n")
            pipe.incr("whimbrel:m")
            pipe.execute()
            ended(process, 9)


def test_a_folder_from_before_there_were_users_works_on(tmp_path: Path, kind: str) -> None:
    settings = load(None, environ(tmp_path, kind))
    settings.redis_dir.mkdir()
    server = find(settings)
    command = [str(server.path), "--port", "0", "--unixsocket", f"{tmp_path}/s", "--dir", str(settings.redis_dir)]
    with subprocess.Popen([*command, "--appendonly", "yes", "--save", ""], stdout=subprocess.DEVNULL) as process:
        with redis.Redis(unix_socket_path=f"{tmp_path}/s") as client:
            assert wait(client, lambda _: None, lambda: process.poll() is not None)
            client.pipeline(transaction=True).set("whimbrel:old", "1").execute()
        process.terminate()
    (settings.redis_dir / "kind").write_text(server.kind)
    with serving(tmp_path, kind) as (_, client):
        assert client.get("whimbrel:old") == b"1"


# A Redis of others -----------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path) -> Settings:
    """Settings of a Redis of others at a place that is free, each role's password in a file."""
    for role in ROLES:
        (tmp_path / role).write_text(f"word-of-{role}\n")
    return settings_of(
        f"unix://{tmp_path}/none", tmp_path, redis__user="our-{role}", redis__password=f"file:{tmp_path}/{{role}}"
    )


def test_the_printed_lines_serve_a_redis_of_others(foreign: Settings, own_redis: RedisServer, tmp_path: Path) -> None:
    own_redis.kill()
    lines = [line for line in users.to_paste(foreign) if not line.startswith("#")]
    (tmp_path / "users.acl").write_text("\n".join(lines))
    assert "word-of-" not in "".join(lines)
    own_redis.start_with_users(tmp_path / "users.acl", "our-admin", f"word-of-{ADMIN}")
    settings = settings_of(
        own_redis.url, tmp_path, redis__user="our-{role}", redis__password=f"file:{tmp_path}/{{role}}"
    )
    with of(settings, "query") as client:
        assert client.ping()
        assert refused(client, "SET", "whimbrel:alive", 1)
    with connect(settings) as client:
        assert client.acl_whoami() in (b"our-admin", "our-admin")
    [found] = redis_access.access(settings)
    assert found.level == "ok"


def test_without_passwords_the_lines_leave_a_place_for_them(tmp_path: Path) -> None:
    lines = list(users.to_paste(load(environ={"WHIMBREL__DATA__DIR": str(tmp_path)})))
    assert f"user whimbrel-api on >PASSWORD_OF_API {rules('api')}" in lines


def test_who_logs_in(foreign: Settings, tmp_path: Path) -> None:
    assert Login(foreign, "api").get_credentials() == ("our-api", "word-of-api")
    only = settings_of("redis://h", tmp_path, redis__password="env:WORD")
    assert Login(only, "api", {"WORD": "secret"}).get_credentials() == ("secret",)
    with pytest.raises(redis.ConnectionError, match="the environment has no WORD"):
        Login(only, "api", {}).get_credentials()
    (tmp_path / "api").unlink()
    with pytest.raises(redis.ConnectionError, match="cannot read a secret from"):
        Login(foreign, "api").get_credentials()


def test_a_program_is_its_role(foreign: Settings) -> None:
    try:
        act_as("compactor")
        with connect(foreign) as client:
            provider = client.connection_pool.connection_kwargs["credential_provider"]
        assert provider.get_credentials() == ("our-scheduler", "word-of-scheduler")
    finally:
        act_as(ADMIN)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"redis__password": "x"}, "need redis.url"),
        ({"redis__url": "redis://h", "redis__user": "x"}, "needs redis.password"),
        ({"redis__url": "redis://u:p@h", "redis__password": "x"}, "only one of them"),
    ],
    ids=["no url", "no password", "twice"],
)
def test_settings_that_contradict(values: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load(environ={f"WHIMBREL__{name.upper()}": value for name, value in values.items()})


# Holes -----------------------------------------------------------------------------------------------


def test_our_own_has_no_hole(own: Settings) -> None:
    [found] = redis_access.access(own)
    assert (found.level, "lets nobody in without a password" in found.text) == ("ok", True)


def test_a_port_without_a_password_is_a_hole(
    own_redis: RedisServer, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_redis.kill()
    own_redis.start("--port", str(free_port), "--bind", "127.0.0.1")
    settings = settings_of(f"redis://127.0.0.1:{free_port}", tmp_path)
    [found] = redis_access.access(settings)
    assert (found.level, "every user of this machine" in found.text) == ("warning", True)
    monkeypatch.setattr(redis_access, "is_loopback", lambda _host: False)
    [found] = redis_access.access(settings)
    assert found.level == "failure"
    with own_redis.client() as client:
        client.config_set("requirepass", "word")
    [found, *_] = redis_access.access(settings_of(f"redis://:word@127.0.0.1:{free_port}", tmp_path))
    assert found.level == "ok"


def test_a_socket_that_others_reach(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    assert [found.level for found in redis_access.access(settings)] == ["ok"]
    own_redis.folder.chmod(0o755)
    os.chmod(own_redis.folder / "redis.sock", 0o777)
    assert [found.level for found in redis_access.access(settings)] == ["warning"]


def test_a_default_user_that_could_not_read_the_aof(own_redis: RedisServer, tmp_path: Path) -> None:
    with own_redis.client() as client:
        client.acl_setuser("default", enabled=True, nopass=True, categories=["-@dangerous"], commands=["+acl"])
    assert [found.level for found in redis_access.access(settings_of(own_redis.url, tmp_path))] == ["ok", "failure"]
