"""A whole box on a disk that fills up: it refuses in time, and loses nothing even when it could not."""

from __future__ import annotations

import csv
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis

from telemetry.config import load
from telemetry.redis_client import connect
from tests.box import Box
from tests.small_disk import SmallDisk

MIN_FREE = 32 * 2**20
NOTE = "n" * 2_000

pytestmark = pytest.mark.slow


def wait_until(is_so: Callable[[], bool], seconds: float = 90) -> None:
    stop_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < stop_s
        time.sleep(0.1)


def reasons(box: Box) -> list[str]:
    found: list[str] = box.http.get("/readyz").json()["reasons"]
    return found


def post(box: Box, number: int) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{box.http_port}/v1/records",
        json={"device_id": "a", "altitude": number, "note": NOTE},
        timeout=30,
    )


def tcp_answer(box: Box) -> dict[str, object]:
    with socket.create_connection(("127.0.0.1", box.tcp_port), 10) as device:
        device.sendall(b'{"device_id": "tcp", "altitude": 1}\n')
        found: dict[str, object] = json.loads(device.makefile().readline())
    return found


class Sender:
    """Sends one record after the other until told to stop, and knows which were acknowledged."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: set[int] = set()
        self.others: set[int] = set()
        self.refused = 0

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            number += 1
            try:
                status = post(self._box, number).status_code
            except httpx.TransportError:
                status = 0
            if status == 202:
                self.acknowledged.add(number)
            elif status == 503:
                self.refused += 1
                time.sleep(0.05)
            else:
                self.others.add(status)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._thread.join()


def altitudes(box: Box, file: Path) -> list[int]:
    """What tells the records of an export apart."""
    box.json("export", str(file))
    with file.open(newline="") as rows:
        return sorted(int(float(row["altitude_m"])) for row in csv.DictReader(rows) if row["device_id"] == "a")


def assert_all_once(box: Box, folder: Path, acknowledged: set[int]) -> None:
    for name in ("tail", "archive"):
        found = altitudes(box, folder / f"{name}.csv")
        assert len(found) == len(set(found)), "none is there twice"
        assert acknowledged <= set(found)
        box.json("drain")


def test_below_its_mark_all_is_refused_in_words_until_there_is_room_again(disk: SmallDisk) -> None:
    with Box(disk.path, data__min_free_bytes=str(MIN_FREE), persist__flush_seconds="1") as box:
        assert post(box, 1).status_code == 202
        disk.leave(MIN_FREE - 2**20)
        wait_until(lambda: post(box, 2).status_code == 503)
        refused = post(box, 3)
        assert refused.headers["retry-after"] == "30"
        assert refused.json()["type"] == "urn:whimbrel:problem:busy"
        assert "disk" in refused.json()["detail"]
        assert tcp_answer(box)["retry"] is True
        [reason] = reasons(box)
        assert reason.startswith("the disk has 31 MiB free")
        status = box.http.get("/status", headers={"Accept": "application/json"}).json()
        assert status["reasons"] == [reason]
        assert status["disk_free_bytes"] < status["disk_min_free_bytes"] == MIN_FREE
        disk.leave(MIN_FREE + 2**20)
        time.sleep(0.5)
        assert post(box, 4).status_code == 503, "a little more room is not enough"
        assert reasons(box) != []
        disk.release()
        wait_until(lambda: post(box, 5).status_code == 202)
        assert reasons(box) == []
        assert tcp_answer(box)["accepted"] == 1
        assert box.stop() == 0


@pytest.mark.parametrize("min_free_bytes", [MIN_FREE, 0], ids=["with a mark", "without one"])
def test_a_disk_full_to_the_last_byte_costs_no_acknowledged_record(
    min_free_bytes: int, disk: SmallDisk, tmp_path: Path
) -> None:
    """Redis exits then as soon as it must write; it is started again, and what it had acknowledged is in its AOF."""
    with Box(disk.path, data__min_free_bytes=str(min_free_bytes), persist__flush_seconds="1") as box:
        with Sender(box) as sender:
            wait_until(lambda: len(sender.acknowledged) > 200)
            first = server_pid(box)
            disk.fill()
            wait_until(lambda: server_pid(box) != first)
            refused = sender.refused
            wait_until(lambda: sender.refused > refused + 20)
            before = len(sender.acknowledged)
            disk.release()
            wait_until(lambda: len(sender.acknowledged) > before + 200)
            wait_until(lambda: reasons(box) == [])
        assert sender.others == set()
        assert server_pid(box) not in (0, first)
        assert_all_once(box, tmp_path, sender.acknowledged)
        assert box.stop() == 0


def server_pid(box: Box) -> int:
    """Process id of the box's Redis, 0 while it is away."""
    try:
        with connect(load(environ=box.environ)) as client:
            return int(client.info("server")["process_id"])
    except redis.RedisError:
        return 0
