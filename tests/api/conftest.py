"""The API as a program of its own on a real Redis, and what its tests need to fill the stores behind it."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis

from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.loader import load
from telemetry.config.settings import PROJECT
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import RawEntry, pack, read_entry
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.api_keys import KeyRequest, make
from telemetry.model.record import Record, Sent, Stored
from telemetry.startup.store_setup import set_up
from tests.box import free_ports, plain_http
from tests.conftest import RedisServer
from worker.saving.save_budget import Bounds
from worker.saving.saver import Saver

START_S = 20.0
STOP_S = 10.0
NOW_MS = 1_795_500_000_000


class Box:
    """One box: its Redis, its archive and, once started, the API as a subprocess."""

    def __init__(self, url: str, folder: Path, **more: str) -> None:
        [port] = free_ports(1)
        names = {"redis__url": url, "data__dir": str(folder / "data"), "api__port": str(port), **more}
        self.environ = {f"WHIMBREL__{name.upper()}": value for name, value in names.items()}
        self.settings = load(environ=self.environ)
        self.client = connect(self.settings)
        self.archive = Archive(self.settings.archive_dir)
        self.connection = open_duckdb()
        self.shards: list[Shard] = []
        self.port = port
        self.http = plain_http(f"http://127.0.0.1:{port}")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = folder / "api.log"

    def set_up(self) -> None:
        """Make the stores of this box unless they are there."""
        self.shards = set_up(self.client, self.archive, self.settings.redis.shards)

    def start(self) -> None:
        """Start the API and the query program; return once both answer."""
        for program in ("api.query", "api"):
            self.start_program(program)
        stop_s = time.monotonic() + START_S
        while True:
            assert all(process.poll() is None for process in self._processes), self._log.read_text()
            assert time.monotonic() < stop_s, "the API does not answer"
            with contextlib.suppress(httpx.TransportError):
                if self.http.get("/v1/records?limit=0").status_code == 400:
                    return
            time.sleep(0.02)

    def start_program(self, program: str) -> subprocess.Popen[bytes]:
        """Start one program of the box."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", program], cwd=PROJECT, env={**os.environ, **self.environ}, stderr=log
            )
        self._processes.append(process)
        return process

    def stop_program(self, program: str) -> str:
        """End one program that was started; returns its name."""
        process = next(one for one in self._processes if program in one.args)  # type: ignore[operator]
        self._processes.remove(process)
        process.terminate()
        process.wait(STOP_S)
        return program

    def pid(self, program: str) -> int:
        """The process id of a program that was started."""
        return next(one.pid for one in self._processes if one.args[-1] == program)  # type: ignore[index]

    def stop(self) -> None:
        """End the API as its supervisor does."""
        self.http.close()
        self.client.close()
        self.connection.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            assert process.wait(STOP_S) == 0, self._log.read_text()
        log = self._log.read_text() if self._log.exists() else ""
        assert "Traceback" not in log, log

    def make_key(self, *scopes: str, **more: Any) -> str:
        """A new key, of a `Wish` of these scopes."""
        text, key = make(KeyRequest(scopes, **more), int(time.time()), secrets.token_bytes)
        shared_state.add_key(self.client, key)
        return text

    def append(self, *sent: Sent) -> list[Stored]:
        """Store records as a collector does, in one group; return them as they are at rest."""
        parts: dict[int, list[Sent]] = {}
        for one in sent:
            parts.setdefault(shard_of(one.device_id, len(self.shards)), []).append(one)
        found = []
        for number, part in parts.items():
            shard = self.shards[number]
            devices = sorted({one.device_id for one in part})
            ends = [_end(stream) for stream in shard.entries([(device, "-", "+") for device in devices])]
            append_batches(shard, [Batch(pack(part))], Limits())
            streams = shard.entries([(device, end, "+") for device, end in zip(devices, ends, strict=True)])
            for device, entries in zip(devices, streams, strict=True):
                found += [stored for raw in entries for stored in read_entry(device, raw, shard.shards)]
        return found

    def save(self, reached: Callable[[str], None] = lambda _: None, bounds: Bounds | None = None) -> None:
        """Save every shard once, as the worker does."""
        saver = Saver(self.archive, self.connection, lambda: NOW_MS, bounds, reached=reached)
        for shard in self.shards:
            saver.save(shard)

    def get(self, path: str, *parameters: tuple[str, str | int]) -> httpx.Response:
        """GET a path with query parameters, which may repeat."""
        return self.http.get(path, params=list(parameters) or None)


def _end(entries: Sequence[RawEntry]) -> str:
    """Where what is appended to a stream begins, for XRANGE."""
    return f"({entries[-1][0].decode()}" if entries else "-"


@contextlib.contextmanager
def box_on(url: str, folder: Path, **more: str) -> Iterator[Box]:
    """A box on an emptied Redis, its API answering; `more` are SECTION__KEY of settings.

    If it requires keys, its client has one that may do all.
    """
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    box = Box(url, folder, **more)
    box.set_up()
    if box.settings.auth.required:
        box.http.headers["Authorization"] = f"Bearer {box.make_key('admin')}"
    try:
        box.start()
        yield box
    finally:
        box.stop()


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box for all tests of a module."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("box")) as found:
        yield found


def record(timestamp_us: int, transport: str = "http", fix: bool = True, **more: object) -> Record:
    """A record of a moment."""
    place = {"latitude": 1.0, "longitude": 2.0} if fix else {}
    return Record(timestamp_us, transport, "json", **{**place, **more})  # type: ignore[arg-type]


def segment(device_id: str) -> str:
    """A device's id as one segment of a path; no client takes its dots for `.` or `..`."""
    return quote(device_id, safe="").replace(".", "%2E")


def assert_problem(response: httpx.Response, status: int, name: str) -> dict[str, object]:
    """Check that an answer is a problem of this kind; return its members."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = response.json()
    assert found["type"] == f"urn:whimbrel:problem:{name}"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    return found
