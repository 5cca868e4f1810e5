"""Each program is stopped and started again under load: it exits without help, and senders only need to retry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cli.sending.http_sender import HttpSender
from cli.sending.sender import Patience, Tally
from cli.sending.sources import Row
from cli.sending.tcp_sender import TcpSender
from tests.box import Box, plain_http
from tests.senders import Beside, altitudes, reasons, wait_until

pytestmark = pytest.mark.slow

PROGRAMS = ("collector", "api", "query", "worker", "scheduler", "redis")
STOP_S = 10
PATIENCE_S = 60


class Load(Beside):
    """Sends numbered records, one per batch, until stopped. Reports batches that were rejected permanently."""

    def __init__(self, name: str, make: Callable[[Tally, Patience], HttpSender | TcpSender]) -> None:
        super().__init__()
        self.name = name
        self.said: list[str] = []
        self.tally = Tally(name, self.said.append, lambda _: None)
        patience = Patience(PATIENCE_S, time.monotonic, time.sleep, lambda _: None)
        self._sender = make(self.tally, patience)
        self.sent = 0

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._sender.send([Row(self.sent, json.dumps({"device_id": self.name, "altitude": self.sent}).encode())])
            self.sent += 1
            time.sleep(0.005)
        self._sender.finish()
        self._sender.close()


def loads(box: Box) -> list[Load]:
    """One sender for each way in."""

    def over_http(port: int) -> Callable[[Tally, Patience], HttpSender]:
        http = plain_http(f"http://127.0.0.1:{port}")
        keys = iter(range(10**9))
        return lambda tally, patience: HttpSender(http, patience, tally, lambda: f"{port} {next(keys)}")

    def over_tcp(tally: Tally, patience: Patience) -> TcpSender:
        return TcpSender(("127.0.0.1", box.tcp_port), patience, tally, "gateway", 2**20)

    return [
        Load("over HTTP", over_http(box.http_port)),
        Load("over the API's port", over_http(box.api_port)),
        Load("over TCP", over_tcp),
    ]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path, persist__flush_seconds="1", data__min_free_bytes="0") as found:
        yield found


def pid_of(box: Box, program: str) -> int:
    """The newest process of a program, as the log has it."""
    started = rf" supervisor: {program} started, process (\d+)"
    found = [one[1] for line in list(box.output) if (one := re.search(started, line))]
    return int(found[-1])


def test_each_program_in_turn(box: Box, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(load) for load in loads(box)]
        for program in PROGRAMS:
            before = [load.tally.accepted for load in running]
            wait_until(lambda: all(load.tally.accepted > was + 20 for load, was in zip(running, before, strict=True)))  # noqa: B023
            stop(box, program)
        before = [load.tally.accepted for load in running]
        wait_until(lambda: all(load.tally.accepted > was + 20 for load, was in zip(running, before, strict=True)))
        wait_until(lambda: reasons_or_away(box) == [])
    for load in running:
        assert (load.said, load.tally.refused, load.tally.accepted) == ([], 0, load.sent)
        assert altitudes(box, tmp_path / "all.csv", load.name) == list(range(load.sent))
    box.json("drain")
    for load in running:
        assert altitudes(box, tmp_path / "all.csv", load.name) == list(range(load.sent))
    assert box.stop() == 0


def stop(box: Box, program: str) -> None:
    """SIGTERM to one program: it ends with status 0 in time, and is started again."""
    pid, start = pid_of(box, program), len(box.output)
    os.kill(pid, signal.SIGTERM)
    ended = rf" supervisor: {program} ended by itself: (.*); it is started again"
    wait_until(lambda: any(re.search(ended, line) for line in box.output[start:]), STOP_S)
    [how] = [found[1] for line in box.output[start:] if (found := re.search(ended, line))]
    assert how == "exit status 0"
    wait_until(lambda: pid_of(box, program) != pid, STOP_S)


def reasons_or_away(box: Box) -> list[str]:
    try:
        return reasons(box)
    except httpx.TransportError as error:
        return [str(error)]


def test_the_whole_box(box: Box, tmp_path: Path) -> None:
    """All stop together; a sender that continued gets a response when the box runs again."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(load) for load in loads(box)]
        wait_until(lambda: all(load.tally.accepted > 20 for load in running))
        assert box.stop() == 0
        ends = [found[1] for line in box.output if (found := re.search(r" supervisor: (\w+ stopped: .*)", line))]
        assert sorted(ends) == sorted(f"{program} stopped: exit status 0" for program in PROGRAMS)
        box.start()
        before = [load.tally.accepted for load in running]
        wait_until(lambda: all(load.tally.accepted > was + 20 for load, was in zip(running, before, strict=True)))
    for load in running:
        assert altitudes(box, tmp_path / "all.csv", load.name) == list(range(load.sent))
