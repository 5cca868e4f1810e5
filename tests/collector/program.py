"""The collector in a separate process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.startup.store_setup import set_up
from tests.box import PROJECT, free_ports
from tests.collector.conftest import HOST
from tests.conftest import RedisServer, settings_of

STOP_S = 10


class Program:
    """The collector as a process of its own, that may be killed and started again."""

    def __init__(self, url: str, folder: Path, **more: str) -> None:
        self.http_port, self.port = free_ports(2)
        self.settings: Settings = settings_of(url, folder, **more)
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL")}
        self._environ |= {
            "WHIMBREL__REDIS__URL": url,
            "WHIMBREL__DATA__DIR": str(self.settings.data_dir),
            "WHIMBREL__DATA__MIN_FREE_BYTES": "0",
            "WHIMBREL__COLLECTOR__HTTP_PORT": str(self.http_port),
            "WHIMBREL__COLLECTOR__TCP_PORT": str(self.port),
        }
        self._environ |= {f"WHIMBREL__{name.upper()}": value for name, value in more.items()}
        self._log = folder / "collector.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "collector"]
            self.process = subprocess.Popen(command, cwd=PROJECT, env=self._environ, stderr=log)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


def connected(port: int, wait_s: float) -> socket.socket:
    """A connection, once the collector listens."""
    stop_s = time.monotonic() + wait_s
    while True:
        try:
            return socket.create_connection((HOST, port), wait_s)
        except ConnectionRefusedError:
            assert time.monotonic() < stop_s
            time.sleep(0.05)


@contextlib.contextmanager
def program(redis_server: RedisServer, folder: Path, **more: str) -> Iterator[Program]:
    """A running collector whose store is set up."""
    found = Program(redis_server.url, folder, **more)
    with connect(found.settings) as client:
        set_up(client, Archive(found.settings.archive_dir), found.settings.redis.shards)
    found.start()
    try:
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            found.kill()
