"""Shared fixtures: a real Redis, an archive in a temporary folder, and both together."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import duckdb
import pytest
import redis

from cli.redis_server.command import find
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.archive.table_cache import TableCache
from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect, wait
from telemetry.hot_store.shard import Shard
from telemetry.startup.store_setup import set_up
from tests.box import free_ports
from tests.small_disk import SmallDisk, small_disk


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough",
        action="store_true",
        help="also explore the largest models and run further variants of long tests: minutes",
    )


@pytest.fixture(scope="session")
def is_thorough(pytestconfig: pytest.Config) -> bool:
    """Whether what takes long is asked for that was good once, and is so again if what is smaller is."""
    return bool(pytestconfig.getoption("--thorough"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("thorough") and not item.config.getoption("--thorough"):
        pytest.skip("needs --thorough")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Disable garbage collection while tests are collected: the collected objects stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Release the collected objects at the end, because libraries report objects that remain."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: at the end they would run one after another while all else is done."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def server_choice() -> Settings:
    """Settings that name the server to test with: `WHIMBREL__REDIS__SERVER=bundled scripts/test` takes that one."""
    name = "WHIMBREL__REDIS__SERVER"
    return load(environ={name: os.environ[name]} if name in os.environ else {})


class RedisServer:
    """A real server on a unix socket, with the settings that Whimbrel asks for, that tests may kill and restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/redis.sock"
        self._login: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start_with_users(self, file: Path, user: str, password: str) -> None:
        """The same with the users of an ACL file, one of which asks from here on."""
        self._login = {"username": user, "password": password}
        self.start("--aclfile", str(file))

    def start(self, *more: str) -> None:
        """Start, or start again on the same AOF."""
        command = [str(find(server_choice()).path), "--port", "0", "--unixsocket", f"{self.folder}/redis.sock"]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        command += ["--stream-node-max-bytes", "1024", "--logfile", str(self.folder / "log"), *more]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        process = self._process
        with self.client() as client:
            is_up = wait(client, lambda _: None, lambda: process.poll() is not None, lambda _: time.sleep(0.01))
            assert is_up, f"Redis ended at once: {self.folder / 'log'}"

    def client(self) -> redis.Redis:
        """A client of this server."""
        return redis.Redis.from_url(self.url, **self._login)

    def kill(self) -> None:
        """SIGKILL, as a power cut would, but for the page cache."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A server with a folder of its own, whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all tests that don't kill it."""
    with running_redis() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test."""
    with running_redis() as server:
        yield server


@pytest.fixture
def settings(shared_redis: RedisServer, tmp_path: Path) -> Settings:
    """Settings of a box on the shared server, its data in a temporary folder."""
    return settings_of(shared_redis.url, tmp_path)


def settings_of(url: str, folder: Path, **more: str) -> Settings:
    """Settings of a box on the Redis at `url`; `more` are SECTION__KEY of environment variables."""
    environ = {"WHIMBREL__REDIS__URL": url, "WHIMBREL__DATA__DIR": str(folder / "100 % data")}
    return load(environ=environ | {f"WHIMBREL__{name.upper()}": value for name, value in more.items()})


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    """A client of an empty Redis."""
    with connect(settings) as found:
        found.flushall()
        found.config_set("maxmemory", 0)
        yield found


@pytest.fixture
def archive(settings: Settings) -> Archive:
    """An archive that is not made yet."""
    return Archive(settings.archive_dir, cache=TableCache())


@pytest.fixture
def shard(client: redis.Redis, archive: Archive) -> Shard:
    """The only shard of a store that is set up."""
    return set_up(client, archive, 1)[0]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 96 MiB."""
    with small_disk(tmp_path / "disk", 96) as found:
        yield found


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB."""
    with open_duckdb() as found:
        yield found


@pytest.fixture
def free_port() -> int:
    """A free port."""
    return free_ports(1)[0]
