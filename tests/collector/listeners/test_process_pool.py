"""Several collector processes on the same ports: started again after they die, all ended at the end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from collector.listeners.process_pool import sockets
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import attach
from telemetry.http.server import listen
from telemetry.model.errors import ConfigError
from tests.box import free_ports
from tests.collector.conftest import HOST, RECEIVED, line
from tests.collector.program import Program, program
from tests.conftest import RedisServer

COUNT = 3
WAIT_S = 20


def until(is_so: Callable[[], bool]) -> None:
    stop_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < stop_s
        time.sleep(0.02)


def children(found: Program) -> set[int]:
    assert found.process is not None
    return {child.pid for child in psutil.Process(found.process.pid).children()}


def serving(pid: int) -> bool:
    """Whether a process holds a connection that was accepted."""
    return any(
        one.status == psutil.CONN_ESTABLISHED and one.raddr for one in psutil.Process(pid).net_connections("tcp")
    )


@pytest.fixture
def several(own_redis: RedisServer, tmp_path: Path) -> Iterator[Program]:
    with program(own_redis, tmp_path, collector__processes=str(COUNT)) as found:
        until(lambda: found.log().count("collecting: ") == COUNT)
        yield found


def sending(found: Program) -> socket.socket:
    return socket.create_connection((HOST, found.port), WAIT_S)


def ask(connection: socket.socket) -> bytes:
    connection.sendall(line("d"))
    return connection.recv(1_000)


@pytest.mark.slow
def test_they_share_both_ports(several: Program) -> None:
    pids = children(several)
    assert len(pids) == COUNT
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(sending(several)) for _ in range(60)]
        assert [ask(one) for one in connections] == [RECEIVED] * 60
        assert all(serving(pid) for pid in pids)
    for _ in range(20):
        answer = httpx.post(f"http://{HOST}:{several.http_port}/v1/records", json={"device_id": "h"})
        assert answer.status_code == 202
    with connect(several.settings) as client:
        [shard] = attach(client, 1)
        assert shard.unsaved() == 80


@pytest.mark.slow
def test_one_that_dies_is_started_again_and_who_knocked_meanwhile_is_let_in(several: Program) -> None:
    pids = children(several)
    victim = min(pids)
    psutil.Process(victim).kill()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(sending(several)) for _ in range(60)]
        assert [ask(one) for one in connections] == [RECEIVED] * 60
    until(lambda: len(children(several) - {victim}) == COUNT)
    assert len(children(several) & pids) == COUNT - 1
    assert f"collector process {victim} ended with status -9" in several.log()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all(several: Program, number: signal.Signals) -> None:
    pids = children(several)
    with sending(several) as connection:
        assert ask(connection) == RECEIVED
        began_s = time.monotonic()
        assert several.kill(number) == 0
        assert time.monotonic() - began_s < 10
        assert connection.recv(10) == b""
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "Traceback" not in several.log()


@pytest.mark.slow
def test_none_outlives_the_parent(several: Program) -> None:
    pids = children(several)
    several.kill(signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_port_that_is_taken_is_not_shared_unasked() -> None:
    http_port, tcp_port = free_ports(2)
    with listen(HOST, tcp_port), pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{tcp_port}"):
        sockets(HOST, http_port, tcp_port, 2)
    with (
        listen(HOST, tcp_port, reuse_port=True),
        pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{tcp_port}"),
    ):
        sockets(HOST, http_port, tcp_port, 2)


@pytest.mark.slow
def test_one_process_needs_no_parent(own_redis: RedisServer, tmp_path: Path) -> None:
    with program(own_redis, tmp_path) as found:
        until(lambda: "collecting: " in found.log())
        assert children(found) == set()
        with sending(found) as connection:
            assert json.loads(ask(connection))["accepted"] == 1
        assert found.kill(signal.SIGTERM) == 0
