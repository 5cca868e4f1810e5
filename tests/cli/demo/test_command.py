"""`whimbrel demo` as a user meets it: an address, ships that move, history at once, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.box import PROJECT, STOP_S, free_ports, plain_http

pytestmark = pytest.mark.slow

READY_S = 60
HOUR_S = 3_600
SAILED_BEFORE = 17_284
"""Positions of the three days before the story is looked at."""

BEGAN_H = 72 + (36 + 52 / 60) * (1 - 1 / 600)
"""How long ago the story began: three days, and a day and a half that will have passed when it has been told."""

FASTEST_KMH = 50
GONE_S = 10


class Demo:
    """A demonstration in a process of its own, whose temporary folder is within `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = free_ports(1)[0]
        environ = {name: value for name, value in os.environ.items() if name == "WHIMBREL__REDIS__SERVER"}
        with (folder.parent / "said").open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "demo", "--port", str(self.port), *arguments],
                cwd=PROJECT,
                env={"PATH": os.environ["PATH"], "TMPDIR": str(folder), "WHIMBREL__API__PORT": "1", **environ},
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.http = plain_http(self.line.strip())
        self.all_of_it = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]

    @property
    def said(self) -> str:
        return (self.folder.parent / "said").read_text()

    def latest(self) -> dict[str, Any]:
        found = self.http.get("/v1/latest", params={"limit": "1000"})
        assert found.status_code == 200, found.text
        return {one["device_id"]: one for one in found.json()["records"]}

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_S + 10)

    def is_gone(self) -> bool:
        return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in self.all_of_it)

    def close(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        deadline = time.monotonic() + GONE_S
        while not self.is_gone() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.is_gone()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    started = Demo(tmp_path / "tmp", "--speed", "600")
    try:
        yield started
    finally:
        started.close()


def test_ships_move_and_have_a_history_at_once(demo: Demo) -> None:
    assert demo.line == f"http://127.0.0.1:{demo.port}/\n"
    now_s = time.time()
    first = demo.latest()
    assert len(first) > 100
    heard_h = {
        name: (now_s - datetime.fromisoformat(one["last_seen"]).timestamp()) / HOUR_S for name, one in first.items()
    }
    assert sum(hours > 24 for hours in heard_h.values()) > 50  # they have left, and are not taken to be there
    assert max(heard_h.values()) < BEGAN_H + 1
    assert first["ever-given"]["attributes"]["story_time"].startswith("2021-03-2")

    span = {"start": str(now_s - (BEGAN_H + 1) * HOUR_S), "end": str(now_s), "limit": "50000"}
    history = demo.http.get("/v1/records", params=span).json()["records"]
    assert len(history) >= SAILED_BEFORE
    began_s = datetime.fromisoformat(history[0]["timestamp"]).timestamp()
    assert now_s - began_s == pytest.approx(BEGAN_H * HOUR_S, abs=0.1 * HOUR_S)
    assert history[0]["attributes"]["story_time"] == "2021-03-20T00:00:00Z"

    deadline = time.monotonic() + 30
    moved: set[str] = set()
    while len(moved) < 10:
        assert time.monotonic() < deadline, demo.said
        time.sleep(0.5)
        after = demo.latest()
        moved = {name for name in first if after[name]["latitude"] != first[name]["latitude"]}
    assert max(one["timestamp"] for one in after.values()) > max(one["timestamp"] for one in first.values())
    trips = demo.http.get("/v1/trips", params={**span, "limit": "1000"}).json()["trips"]
    assert len(trips) > 50
    assert max(one["speed_kmh_mean"] for one in trips) < FASTEST_KMH
    assert demo.stop(signal.SIGINT) == 0
    assert demo.is_gone()
    assert list(demo.folder.iterdir()) == []
    assert "23 March 2021, 00:00: Ships wait" in demo.said
    assert "refused" not in demo.said


def test_sigterm_twice_leaves_nothing_either(demo: Demo) -> None:
    demo.process.terminate()
    time.sleep(0.2)
    assert demo.stop(signal.SIGTERM) == 0
    assert demo.is_gone()
    assert list(demo.folder.iterdir()) == []


def test_killed_it_leaves_no_process(demo: Demo) -> None:
    demo.process.kill()
    demo.close()


def test_a_box_that_is_killed_under_it_is_said(demo: Demo) -> None:
    (up,) = (one for one in demo.all_of_it if "up" in one.cmdline())
    up.kill()
    assert demo.process.wait(STOP_S + 10) == 1
    assert re.search(r"whimbrel demo: the box ended, exit status -9; the end of its log:", demo.said)
    assert list(demo.folder.iterdir()) == []


def test_one_that_is_kept_starts_again_and_is_not_written_over(tmp_path: Path) -> None:
    kept = tmp_path / "kept here"
    demo = Demo(tmp_path / "tmp", "--story", "city", "--keep", str(kept))
    try:
        assert len(demo.latest()) == 120
        status = [sys.executable, "-m", "cli.main", "--config", str(kept / "config.toml"), "status"]
        said = subprocess.run(status, cwd=PROJECT, text=True, capture_output=True, timeout=60)
        assert said.returncode == 0, said.stderr
        assert demo.stop(signal.SIGTERM) == 0
    finally:
        demo.close()
    assert {path.name for path in kept.iterdir()} == {"config.toml", "data", "log"}

    again = [sys.executable, "-m", "cli.main", "demo", "--keep", str(kept)]
    said = subprocess.run(again, cwd=PROJECT, text=True, capture_output=True, timeout=60)
    assert said.returncode == 1
    assert f"cannot keep the demonstration in {kept}: there is something in it already" in said.stderr
