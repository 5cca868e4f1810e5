"""A whole box, started as a user does: `whimbrel up` in a separate process, on free ports, in its own folder."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

PROJECT = Path(__file__).resolve().parents[1]
KEPT = ("WHIMBREL__REDIS__SERVER",)
FIRST_PORT, PORTS = 16_000, 2_000
READY_S = 60

INSTALLED_S = 240
"""How long a box may take to be ready that first installs what it needs."""

STOP_S = 10
KEY_S = 30
UNKNOWN = (401, 429)
"""Status codes for an unknown key, and for many of them."""


def free_ports(count: int) -> list[int]:
    """Free ports, outside the range that the kernel assigns to clients.

    Processes that test side by side draw from ranges of their own. A process draws each port of its range once before
    it draws one again: a program may not listen yet on a port that was drawn a moment ago.
    """
    return list(itertools.islice(filter(_is_free, _ports()), count))


@functools.cache
def _ports() -> Iterator[int]:
    first = FIRST_PORT + PORTS * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8)
    return itertools.cycle(random.sample(range(first, first + PORTS), PORTS))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def plain_http(base_url: str, timeout_s: float = 30) -> httpx.Client:
    """A client that speaks no TLS: to load the authorities it would trust takes 10 ms and more."""
    return httpx.Client(base_url=base_url, timeout=timeout_s, verify=False)


class Box:
    """A running box. `start` and `stop` may be called again and again; the data stay."""

    def __init__(self, folder: Path, command: Sequence[str] = (), cwd: Path = PROJECT, **settings: str) -> None:
        self.data = folder / "data"
        self.api_port, self.http_port, self.tcp_port = free_ports(3)
        self.environ = {
            name: value for name, value in os.environ.items() if name in KEPT or not name.startswith("WHIMBREL")
        }
        self.environ |= {
            "WHIMBREL__DATA__DIR": str(self.data),
            "WHIMBREL__API__PORT": str(self.api_port),
            "WHIMBREL__COLLECTOR__HTTP_PORT": str(self.http_port),
            "WHIMBREL__COLLECTOR__TCP_PORT": str(self.tcp_port),
            "WHIMBREL__REDIS__MAX_MEMORY_BYTES": str(2**30),
        }
        self.environ |= {f"WHIMBREL__{name.upper()}": value for name, value in settings.items()}
        self._scheme = "https" if "tls__certificate" in settings else "http"
        self.http = plain_http(f"http://127.0.0.1:{self.api_port}")
        self.output: list[str] = []
        self._command = list(command) or [sys.executable, "-m", "cli.main", "up"]
        self._ready_s = INSTALLED_S if command else READY_S
        self._cwd = cwd
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        """Start, and return when the box reports that it is ready."""
        self._ready.clear()
        self._process = subprocess.Popen(
            self._command, cwd=self._cwd, env=self.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,))
        self._reader.start()
        if not self._is_ready_by(time.monotonic() + self._ready_s):
            self.kill()
            raise AssertionError("the box is not ready:\n" + "".join(self.output[-40:]))

    def _is_ready_by(self, deadline_s: float) -> bool:
        while time.monotonic() < deadline_s and self._process is not None and self._process.poll() is None:
            if self._ready.wait(0.1):
                return True
        return False

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self.output.append(line)
            if line.startswith("Whimbrel is ready: "):
                self._ready.set()

    @property
    def pid(self) -> int:
        """Process id of `whimbrel up`."""
        assert self._process is not None
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop with a signal; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(STOP_S)
        self._end()
        return status

    def kill(self) -> None:
        """SIGKILL to `whimbrel up`, which takes everything with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._end()

    def _end(self) -> None:
        if self._reader is not None and self._process is not None and self._process.stdout is not None:
            self._reader.join(STOP_S)
            self._process.stdout.close()
        self._process = None

    def whimbrel(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a subcommand with this box's settings."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=self._cwd,
            env=self.environ,
            text=True,
            capture_output=True,
            timeout=timeout_s,
        )

    def new_key(self, *arguments: str) -> str:
        """A key of `whimbrel keys create`, once the programs know it, which read keys again once a second."""
        done = self.whimbrel("keys", "create", *arguments)
        assert done.returncode == 0, done.stderr
        key = done.stdout.splitlines()[-1]
        stop_s, bearer = time.monotonic() + KEY_S, {"Authorization": f"Bearer {key}"}
        for port in (self.api_port, self.http_port):
            with plain_http(f"{self._scheme}://127.0.0.1:{port}") as http:
                while http.post("/v1/records", json=[], headers=bearer).status_code in UNKNOWN:
                    assert time.monotonic() < stop_s, "the key is not known"
                    time.sleep(0.1)
        return key

    def json(self, *arguments: str, timeout_s: float = 120) -> Any:
        """The output of a subcommand with --json."""
        done = self.whimbrel(*arguments, "--json", timeout_s=timeout_s)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def __enter__(self) -> Box:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.http.close()
        is_there = self._process is not None and self._process.poll() is None
        programs = psutil.Process(self.pid).children(recursive=True) if is_there else []
        self.kill()
        psutil.wait_procs(programs, STOP_S)  # they die a moment later, and may write until then
