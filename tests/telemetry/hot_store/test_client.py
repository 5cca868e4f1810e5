"""Connections, and which servers are refused."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import tempfile
import time
from pathlib import Path

import pytest
import redis

from telemetry.config.settings import Redis, Settings
from telemetry.hot_store import client as redis_client
from telemetry.hot_store.client import check_server, connect, require_answer, shown_url, wait
from telemetry.model.errors import ConfigError, StoreUnavailable
from telemetry.system.runtime_dir import make_private, runtime_dir, version
from tests.conftest import RedisServer, settings_of


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru, must be noeviction"),
        ("appendonly", "no", "appendonly is no"),
        ("appendfsync", "everysec", "appendfsync is everysec, must be always"),
    ],
)
def test_a_server_that_could_lose_records_is_refused(
    setting: str, value: str, reason: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    with connect(settings_of(own_redis.url, tmp_path)) as client:
        check_server(client, "aof")
        client.config_set(setting, value)
        with pytest.raises(ConfigError, match=reason):
            check_server(client, "aof")
        if setting != "maxmemory-policy":
            check_server(client, "memory")


def test_a_large_call_goes_into_the_socket_of_our_own_redis_at_once(own_redis: RedisServer, tmp_path: Path) -> None:
    """As far as the system allows; Linux doubles what is asked for."""
    settings = settings_of(own_redis.url, tmp_path)
    most = int(Path("/proc/sys/net/core/wmem_max").read_text(encoding="ascii"))
    with connect(settings) as client:
        connection = client.connection_pool.get_connection()
        assert connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * min(
            redis_client.SENT_BYTES, most
        )
        client.connection_pool.release(connection)
        assert client.echo(b"x" * redis_client.SENT_BYTES) == b"x" * redis_client.SENT_BYTES


def test_versions(monkeypatch: pytest.MonkeyPatch, client: redis.Redis) -> None:
    assert version("7.2.4") == (7, 2, 4)
    monkeypatch.setattr(redis_client, "OLDEST_REDIS", (99,))
    monkeypatch.setattr(redis_client, "OLDEST_VALKEY", (99,))
    with pytest.raises(ConfigError, match="oldest supported version is 99"):
        check_server(client, "aof")


def test_a_server_that_is_away(own_redis: RedisServer, tmp_path: Path) -> None:
    own_redis.kill()
    told: list[str] = []
    with connect(settings_of(own_redis.url, tmp_path)) as client:
        with pytest.raises(StoreUnavailable):
            check_server(client, "aof")
        assert not wait(client, told.append, stopped=lambda: len(told) > 0, sleep=lambda _: None)
        assert told[0].startswith("waiting for Redis: ")
        own_redis.start()
        assert wait(client, told.append)


def test_nothing_is_sent_twice_by_the_client(settings: Settings) -> None:
    with connect(settings) as client:
        assert client.get_retry() is not None
        assert client.get_retry().get_retries() == 0


def test_whether_it_answers_is_known_soon(own_redis: RedisServer, tmp_path: Path) -> None:
    with connect(settings_of(own_redis.url, tmp_path)) as client:
        require_answer(client)
        pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        begun_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match="cannot reach Redis: Timeout"):
            require_answer(client, 0.3)
        assert time.monotonic() - begun_s < redis_client.CALL_TIMEOUT_S / 2
        os.kill(pid, signal.SIGCONT)
        require_answer(client)
        own_redis.kill()
        with pytest.raises(StoreUnavailable, match="cannot reach Redis"):
            require_answer(client)


def test_sockets_get_a_short_path_without_blanks(tmp_path: Path) -> None:
    assert runtime_dir(Path("/srv/whimbrel")) == Path("/srv/whimbrel/run")
    for folder in (tmp_path / ("x" * 120), tmp_path / "a b", tmp_path / "a#b", tmp_path / "é"):
        short = runtime_dir(folder)
        assert len(str(short / "supervisor.sock")) < 100
        assert re.fullmatch(r"[A-Za-z0-9_./-]+", str(short))
        assert short != runtime_dir(folder / "other")


def test_sockets_get_a_short_path_whatever_tmpdir_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path / ("y" * 90), tmp_path / "b c"):
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        short = runtime_dir(tmp_path / ("x" * 120))
        assert len(str(short / "supervisor.sock")) < 100
        assert short.parent == Path("/tmp")


def test_a_private_folder_is_private(tmp_path: Path) -> None:
    make_private(tmp_path / "run")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    (tmp_path / "run").chmod(0o777)
    make_private(tmp_path / "run")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:p%40ss@host:6380/1?password=x", "redis://host:6380/1"),
        ("unix:///run/redis.sock?password=x", "unix:///run/redis.sock"),
        ("rediss://[::1]:6379", "rediss://[::1]:6379"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert shown_url(Settings(redis=Redis(url=url))) == shown
