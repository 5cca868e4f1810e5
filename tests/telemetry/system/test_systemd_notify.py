"""What systemd is told, heard at a socket as its own is."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.system.systemd_notify import Watchdog


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "n"))
        heard.settimeout(0.5)
        yield heard


def told(systemd: socket.socket) -> list[str]:
    systemd.setblocking(False)
    found = []
    try:
        while True:
            found.append(systemd.recv(1_000).decode())
    except BlockingIOError:
        return found


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "n")} | more


def test_ready_comes_once_and_signs_in_time(systemd: socket.socket, tmp_path: Path) -> None:
    dog = Watchdog(environ(tmp_path, WATCHDOG_USEC="400000"))
    for _ in range(5):
        dog.beat()
    assert told(systemd) == ["READY=1", "WATCHDOG=1"]
    time.sleep(0.11)
    dog.beat()
    assert told(systemd) == ["WATCHDOG=1"]
    dog.stopping()
    assert told(systemd) == ["STOPPING=1"]


def test_an_event_loop_that_hangs_is_silent(systemd: socket.socket, tmp_path: Path) -> None:
    async def test() -> None:
        Watchdog(environ(tmp_path, WATCHDOG_USEC="200000")).in_event_loop()
        await asyncio.sleep(0.3)
        assert len(told(systemd)) >= 4
        time.sleep(0.3)  # noqa: ASYNC251 - it hangs
        assert told(systemd) == []

    asyncio.run(test())


def test_another_process_gives_no_signs(systemd: socket.socket, tmp_path: Path) -> None:
    Watchdog(environ(tmp_path, WATCHDOG_USEC="400000", WATCHDOG_PID=str(os.getppid()))).beat()
    assert told(systemd) == ["READY=1"]


def test_a_program_without_work_needs_no_watching(systemd: socket.socket, tmp_path: Path) -> None:
    Watchdog(environ(tmp_path, WATCHDOG_USEC="400000")).rest()
    assert told(systemd) == ["READY=1\nWATCHDOG_USEC=0"]


def test_without_systemd_nothing_is_told(systemd: socket.socket) -> None:
    Watchdog({"WATCHDOG_USEC": "400000"}).beat()
    assert told(systemd) == []


def test_a_systemd_that_is_away_misses_only_signs_until_it_is_back(tmp_path: Path) -> None:
    dog = Watchdog(environ(tmp_path, WATCHDOG_USEC="400000"))
    dog.beat()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "n"))
        time.sleep(0.11)
        dog.beat()
        assert told(systemd) == ["WATCHDOG=1"]
