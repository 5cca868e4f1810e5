"""`python -m collector` with HTTP senders: one that speaks it well, one that writes its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import redis

from telemetry.config.settings import PROJECT, Settings
from telemetry.hot_store.shard import Shard
from tests.box import free_ports
from tests.collector.conftest import HOST, numbers, tail
from tests.conftest import RedisServer

WAIT_S = 20
TIMEOUT_S = 2
MAX_BODY_BYTES = 8 * 2**20
HEAD = f"POST /v1/records HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n".encode()


class Program:
    """A running `python -m collector`."""

    def __init__(self, settings: Settings, **more: str) -> None:
        self.http_port, self.tcp_port = free_ports(2)
        self.environ = {
            "PATH": os.environ["PATH"],
            "WHIMBREL__REDIS__URL": settings.redis.url,
            "WHIMBREL__DATA__DIR": str(settings.data_dir),
            "WHIMBREL__COLLECTOR__HTTP_PORT": str(self.http_port),
            "WHIMBREL__COLLECTOR__TCP_PORT": str(self.tcp_port),
            "WHIMBREL__COLLECTOR__REQUEST_TIMEOUT_S": str(TIMEOUT_S),
            **{f"WHIMBREL__{name.upper()}": value for name, value in more.items()},
        }
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "collector"], env=self.environ, cwd=PROJECT, stderr=subprocess.PIPE, text=True
        )
        return self._process

    def wait(self) -> None:
        """Until it listens."""
        assert self._process is not None
        stop_s = time.monotonic() + WAIT_S
        for port in (self.http_port, self.tcp_port):
            while True:
                assert self._process.poll() is None
                assert time.monotonic() < stop_s
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection((HOST, port)):
                    break
                time.sleep(0.02)

    def terminate(self) -> tuple[int, str]:
        """Send SIGTERM; returns the exit status and the output."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        _, errors = self._process.communicate(timeout=WAIT_S)
        return self._process.returncode, errors


@contextlib.contextmanager
def running(settings: Settings, **more: str) -> Iterator[Program]:
    program = Program(settings, **more)
    process = program.start()
    try:
        program.wait()
        yield program
    finally:
        process.kill()
        process.communicate()


class Box(NamedTuple):
    """A running program, its Redis, and the stored records."""

    program: Program
    server: RedisServer
    client: redis.Redis
    shard: Shard

    def numbers(self, device: str) -> list[int]:
        return numbers(tail(self.shard, device))


class Raw:
    """A sender that writes its own HTTP."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=WAIT_S)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> httpx.Response:
        """The only response on a connection that is then closed."""
        received = b""
        with contextlib.suppress(ConnectionResetError):  # because of sent bytes that were not read
            while piece := self.socket.recv(65_536):
                received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def post(http: httpx.Client, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post("/v1/records", content=content, headers=named)


def problem_of(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The members of a problem besides those that every problem has."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body.pop("type"), body.pop("status")) == (f"urn:whimbrel:problem:{kind}", status)
    assert body.pop("title")
    return body
