"""The courier as a program: beside a whole box, killed at each step, stopped, with nothing to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from telemetry.system.failpoints import VARIABLE
from tests.box import PROJECT, Box
from tests.killer import Killer
from tests.senders import post, wait_until
from tests.worker.courier.alerts.test_notifier import verified
from tests.worker.courier.receiver import NO_ANSWER, Receiver

STOP_S = 10
START_S = 60
STEPS = ("begin", "send", "keep", "advance", "done")


def there(box: Box, limit: int = 50_000) -> Counter[int]:
    """The altitudes that a box shows, by which tests tell records apart."""
    page = box.http.get("/v1/records", params={"start": "2000-01-01", "end": "2035-01-01", "limit": str(limit)}).json()
    return Counter(int(one["altitude_m"]) for one in page["records"])


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path / "other") as found:
        yield found


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, wherever tests run."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_each_record_reaches_another_box_once_though_the_courier_is_killed_at_each_step(
    other: Box, tmp_path: Path, short_folder: Path
) -> None:
    killer = Killer(short_folder, [f"forward {step}" for step in STEPS * 2])
    forward = [{"name": "hq", "url": f"whimbrel://127.0.0.1:{other.tcp_port}"}]
    box = Box(tmp_path / "box", persist__flush_seconds="1", forward=json.dumps(forward))
    box.environ[VARIABLE] = killer.path
    with box:
        sent, end_s = 0, time.monotonic() + 120
        wait_until(lambda: box.json("status")["forwards"][0]["noted_ms"] > 0, START_S)
        while killer.left and time.monotonic() < end_s:
            post(box, sent)
            sent += 1
            time.sleep(0.05)
        assert killer.left == []
        wait_until(lambda: len(there(other)) == sent, START_S)
        assert there(other) == Counter(range(sent)) == there(box)
        [found] = box.json("status")["forwards"]
        assert (found["name"], found["trouble"]) == ("hq", "")
        assert box.stop() == 0


@pytest.mark.slow
def test_a_box_whose_receiver_was_away_catches_up_and_says_how_far_it_is(other: Box, tmp_path: Path) -> None:
    forward = [{"name": "hq", "url": f"whimbrel://127.0.0.1:{other.tcp_port}"}]
    other.stop()
    settings: dict[str, Any] = {
        "persist__flush_seconds": "1",
        "courier__longest_wait_s": "1",
        "forward": json.dumps(forward),
    }
    with Box(tmp_path / "box", **settings) as box:
        wait_until(lambda: box.json("status")["forwards"][0]["noted_ms"] > 0, START_S)
        for number in range(20):
            post(box, number)
        wait_until(lambda: box.json("status")["forwards"][0]["behind_records"] == 20, START_S)
        wait_until(lambda: "cannot reach 127.0.0.1" in box.json("status")["forwards"][0]["trouble"], START_S)
        assert box.json("status")["forwards"][0]["behind_s"] > 0
        assert box.http.get("/readyz").status_code == 200, "a receiver that is away is no fault of this box"
        said = box.whimbrel("status").stdout
        assert "hq to whimbrel://127.0.0.1" in said
        assert "20 records wait" in said
        assert "cannot reach" in box.http.get("/status").text
        other.start()
        wait_until(lambda: box.json("status")["forwards"][0]["behind_records"] == 0, START_S)
        assert there(other) == Counter(range(20))
        assert box.stop() == 0


@pytest.mark.slow
def test_a_webhook_hears_of_devices_and_of_the_box(receiver: Receiver, tmp_path: Path) -> None:
    rules = [{"prefix": "still", "silent_after_s": 0}]
    alert = [{"name": "desk", "url": receiver.url, "secret": "hush", "silent_after_s": 3, "rules": rules}]
    settings: dict[str, Any] = {
        "courier__silence_look_seconds": "1",
        "courier__not_ready_seconds": "1",
        "alert": json.dumps(alert),
    }
    with Box(tmp_path / "box", **settings) as box:
        post(box, 1, device="van")
        post(box, 2, device="still")
        wait_until(lambda: "device.silent van" in heard(receiver), START_S)
        post(box, 3, device="van")
        wait_until(lambda: "device.back van" in heard(receiver), START_S)
        [api] = [p for p in psutil.Process(box.pid).children(recursive=True) if p.cmdline()[-2:] == ["-m", "api"]]
        api.suspend()
        wait_until(lambda: "box.not_ready " in heard(receiver), START_S)
        api.resume()
        wait_until(lambda: "box.ready " in heard(receiver), START_S)
        assert not [one for one in heard(receiver) if one.endswith("still")]

        def told() -> bool:
            [found] = box.json("status")["alerts"]
            return (found["name"], found["pending_events"], found["trouble"]) == ("desk", 0, "")

        wait_until(told, START_S)  # the next event may be on its way
        assert box.stop() == 0
    for got in receiver.posts:
        assert verified(b"hush", got.headers, got.body, time.time())


def heard(receiver: Receiver) -> list[str]:
    """Event and device, as they came."""
    events = [event for got in list(receiver.posts) for event in json.loads(got.body)["events"]]
    return [f"{event['event']} {event.get('device_id', '')}" for event in events]


class Program:
    """`python -m worker.courier` by itself, on a Redis that is away."""

    def __init__(self, folder: Path, **settings: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL")}
        environ |= {"WHIMBREL__DATA__DIR": str(folder), "WHIMBREL__REDIS__URL": f"unix://{folder}/none.sock"}
        environ |= {f"WHIMBREL__{name.upper()}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "worker.courier"]
        self.process = subprocess.Popen(command, cwd=PROJECT, env=environ, stderr=subprocess.PIPE, text=True)

    def stop(self, number: signal.Signals) -> tuple[int, str, float]:
        """Exit status, what it said, and how long that took, s."""
        begun_s = time.monotonic()
        self.process.send_signal(number)
        try:
            _, said = self.process.communicate(timeout=STOP_S)
        finally:
            self.process.kill()
        return self.process.returncode, said, time.monotonic() - begun_s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_nothing_to_do_it_is_small_and_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    program = Program(tmp_path)
    found = psutil.Process(program.process.pid)
    wait_until(lambda: "courier: nothing to do" in found.cmdline(), START_S)
    time.sleep(0.5)
    libraries = {Path(part.path).name.partition(".")[0] for part in found.memory_maps()}
    assert not libraries & {"_duckdb", "_internal", "_core", "hiredis", "lib", "_obstore"}
    assert found.memory_full_info().pss < 16e6
    cpu_s = sum(found.cpu_times()[:2])
    time.sleep(1)
    assert sum(found.cpu_times()[:2]) == cpu_s
    status, said, _ = program.stop(number)
    assert (status, said) == (0, "")
    assert not (tmp_path / "courier").exists()


def test_it_is_stopped_in_time_though_a_receiver_does_not_answer(receiver: Receiver, tmp_path: Path) -> None:
    """The first event is that the box isn't ready: there is none."""
    waiting = threading.Event()

    def never(_post: object) -> tuple[int, dict[str, str]]:
        waiting.set()
        return NO_ANSWER, {}

    receiver.answer = never
    alert = json.dumps([{"name": "desk", "url": receiver.url}])
    program = Program(tmp_path, alert=alert, courier__not_ready_seconds="1", api__port="9", courier__timeout_s="600")
    assert waiting.wait(START_S)
    maps = {part.path for part in psutil.Process(program.process.pid).memory_maps()}
    assert not [path for path in maps if "pyarrow" in path or "duckdb" in path], "alerts need neither"
    status, said, took_s = program.stop(signal.SIGTERM)
    assert status == 0
    assert took_s < STOP_S
    assert "cannot record the progress" in said
    again = Program(tmp_path, alert=alert, courier__not_ready_seconds="1", api__port="9")
    receiver.answer = lambda _: (200, {})
    wait_until(lambda: "box.not_ready " in heard(receiver), START_S)
    assert again.stop(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alert": '[{"name": "a", "url": "http://a/", "secret": "env:NOT_THERE"}]'}, "NOT_THERE"),
        ({"forward": '[{"name": "a", "url": "http://a/", "headers": {"A": "file:/none"}}]'}, "/none"),
        ({"forward": '[{"name": "a", "url": "whimbrels://a:1", "ca_file": "/none"}]'}, "/none"),
    ],
)
def test_a_setting_that_leads_nowhere_stops_the_start(settings: dict[str, str], said: str, tmp_path: Path) -> None:
    program = Program(tmp_path, **settings)
    _, text = program.process.communicate(timeout=START_S)
    assert program.process.returncode == 2
    assert said in text
    assert "Traceback" not in text
