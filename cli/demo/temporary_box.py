"""A box for a while: `whimbrel up` in a process of its own, on ports that are free, in a folder that is its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.services.up import not_ready
from telemetry.config.loader import load
from telemetry.config.settings import PROJECT, Settings
from telemetry.model.errors import ConfigError, StoreError
from telemetry.system.process import SUPERVISED, die_with_parent
from telemetry.system.runtime_dir import runtime_dir

FIRST_PORT, LAST_PORT = 20_000, 32_000
"""Below those that the kernel gives to clients, so that no connection of somebody's takes one before the box does."""

READY_S, LOOK_S = 60.0, 0.1
STOP_S = 20.0
"""Longer than `whimbrel up` takes even if every program hangs."""

SETTINGS = """\
# The settings of this demonstration alone. `whimbrel --config {file} COMMAND` asks its box.

[data]
dir = "data"
min_free_bytes = 67_108_864

[api]
port = {api}

[collector]
http_port = {http}
tcp_port = {tcp}

[redis]
server = "{server}"
max_memory_bytes = 268_435_456
"""

LOG = "log"
LOG_LINES = 20
"""How much of the programs' log is shown if the box ends by itself."""


class Box:
    """The running box. `file` is its settings file, for other commands."""

    def __init__(self, folder: Path, settings: Settings, up: subprocess.Popen[bytes]) -> None:
        self.file = folder / "config.toml"
        self.folder = folder
        self.settings = settings
        self._log = folder / LOG
        self._up = up

    def sleep(self, seconds: float) -> None:
        """Wait. Raises `StoreError` if the box is gone meanwhile."""
        time.sleep(seconds)
        self._require()

    def await_ready(self) -> None:
        """Wait until it can be used. Raises `StoreError` if it can't."""
        deadline = time.monotonic() + READY_S
        while reason := not_ready(self.settings):
            if time.monotonic() > deadline:
                raise StoreError(f"cannot start a box: not ready within {READY_S:.0f} s: {reason}{self._end_of_log()}")
            self.sleep(LOOK_S)

    def whimbrel(self, *arguments: str) -> None:
        """Run another command on this box. Raises `StoreError` with what it said if it failed."""
        command = [sys.executable, "-m", "cli.main", "--config", str(self.file), *arguments]
        done = subprocess.run(
            command, cwd=PROJECT, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise StoreError(f"whimbrel {arguments[0]} failed: {done.stderr.strip()}")

    def await_end(self) -> None:
        """Wait until it ends by itself, which it should not: `StoreError`."""
        self._up.wait()
        self._require()

    def stop(self) -> None:
        """Stop all of it."""
        self._up.terminate()
        try:
            self._up.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._up.kill()  # what it started is tied to it
            self._up.wait()

    def _require(self) -> None:
        if self._up.poll() is not None:
            raise StoreError(f"the box ended, exit status {self._up.returncode}{self._end_of_log()}")

    def _end_of_log(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "; the end of its log:\n" + "\n".join(lines[-LOG_LINES:])


@contextmanager
def running(keep: Path | None, api_port: int | None, server: str) -> Iterator[Box]:
    """A box that is started and stopped again. Its folder is `keep`, which stays, else one that goes with it."""
    folder = _kept(keep) if keep else Path(tempfile.mkdtemp(prefix="whimbrel-demo-"))
    try:
        settings = _settings(folder, api_port, server)
        box = Box(folder, settings, _start(folder))
        try:
            yield box
        finally:
            _deafen()
            box.stop()
    finally:
        if not keep:
            shutil.rmtree(runtime_dir(folder / "data"), ignore_errors=True)  # it may lie elsewhere
            shutil.rmtree(folder)


def _deafen() -> None:
    """From here on it ends anyway: who asks again, asks in vain."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _kept(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot keep the demonstration in {folder}: {error.strerror}") from None
    if not is_empty:
        raise ConfigError(
            f"cannot keep the demonstration in {folder}: there is something in it already; "
            f"`whimbrel --config {folder / 'config.toml'} up` starts one that was kept there"
        )
    return folder.absolute()


def _settings(folder: Path, api_port: int | None, server: str) -> Settings:
    file = folder / "config.toml"
    api, http, tcp = _free_ports(3)
    file.write_text(SETTINGS.format(file=file, api=api_port or api, http=http, tcp=tcp, server=server))
    return load(file, {})


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    return [port for port in random.sample(range(FIRST_PORT, LAST_PORT), 200) if _is_free(port)][:count]


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _environment() -> dict[str, str]:
    """That of this process without settings of Whimbrel."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL")}


def _start(folder: Path) -> subprocess.Popen[bytes]:
    """`whimbrel up` with those settings and none of the environment's; it ends when this process does."""
    parent = os.getpid()

    def tie() -> None:
        os.environ[SUPERVISED] = str(parent)
        die_with_parent()

    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", "--config", str(folder / "config.toml"), "up"],
            cwd=PROJECT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us
            preexec_fn=tie,  # noqa: PLW1509 - no thread has been started yet
        )
