"""Senders that record what was acknowledged, and compare it with the contents of a box."""

from __future__ import annotations

import csv
import json
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

import httpx
import redis

from telemetry.config.loader import load
from telemetry.hot_store.client import connect
from tests.box import Box


def wait_until(is_so: Callable[[], bool], seconds: float = 90) -> None:
    """Return once it is so. Between two looks it rests as long as one takes: a command would keep a core busy."""
    stop_s = time.monotonic() + seconds
    looked_s = time.monotonic()
    while not is_so():
        asked_s = time.monotonic()
        assert asked_s < stop_s
        time.sleep(max(0.1, asked_s - looked_s))
        looked_s = time.monotonic()


def reasons(box: Box) -> list[str]:
    """Why the box is not ready."""
    found: list[str] = box.http.get("/readyz").json()["reasons"]
    return found


def post(box: Box, number: int, note: str = "", device: str = "a") -> httpx.Response:
    """Send one record over HTTP."""
    record = {"device_id": device, "altitude": number, "note": note}
    url = f"http://127.0.0.1:{box.http_port}/v1/records"
    return httpx.post(url, json=record, timeout=30, verify=False)  # as plain_http


def tcp_answer(box: Box) -> dict[str, object]:
    """Send one record over TCP; returns the response."""
    with socket.create_connection(("127.0.0.1", box.tcp_port), 30) as device:
        device.sendall(b'{"device_id": "tcp", "altitude": 1}\n')
        found: dict[str, object] = json.loads(device.makefile().readline())
    return found


class Beside(ABC):
    """Works in a thread of its own from when it is entered until it is left."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @abstractmethod
    def _run(self) -> None:
        """Work until `_stopped` is set."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._thread.join()


PAUSE_S = 0.01
"""Pause between two records: without it, a sender would use a whole core, which the box needs."""


class Sender(Beside):
    """Sends one record after the other until stopped, and records which were acknowledged."""

    def __init__(self, box: Box, note: str = "", device: str = "a") -> None:
        super().__init__()
        self._box = box
        self._note = note
        self.device = device
        self.acknowledged: set[int] = set()
        self.others: set[int] = set()
        self.refused = 0
        self.longest_s = 0.0

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            number += 1
            begun_s = time.monotonic()
            try:
                status = post(self._box, number, self._note, self.device).status_code
            except httpx.TransportError:
                status = 0
            self.longest_s = max(self.longest_s, time.monotonic() - begun_s)
            if status == 202:
                self.acknowledged.add(number)
                time.sleep(PAUSE_S)
            elif status == 503:
                self.refused += 1
                time.sleep(0.05)
            else:
                self.others.add(status)


def altitudes(box: Box, file: Path, device: str = "a") -> list[int]:
    """The values that identify the records of an export."""
    box.json("export", str(file))
    return altitudes_of(file, device)


def altitudes_of(file: Path, device: str) -> list[int]:
    """The same, of a file."""
    with file.open(newline="") as rows:
        return sorted(int(float(row["altitude_m"])) for row in csv.DictReader(rows) if row["device_id"] == device)


def assert_all_once(box: Box, folder: Path, acknowledged: set[int], device: str = "a") -> None:
    """Each acknowledged record is in an export once, before all is saved and after it."""
    assert_each_once(box, folder, {device: acknowledged})


def assert_each_once(box: Box, folder: Path, acknowledged: dict[str, set[int]]) -> None:
    """The same of several devices."""
    for name in ("tail", "archive"):
        file = folder / f"{name}.csv"
        if name == "archive":
            box.json("drain")
        box.json("export", str(file))
        for device, numbers in acknowledged.items():
            found = altitudes_of(file, device)
            assert len(found) == len(set(found)), "none is there twice"
            assert numbers <= set(found)


def server_pid(box: Box) -> int:
    """Process id of the box's Redis, 0 while it is away."""
    try:
        with connect(load(environ=box.environ)) as client:
            return int(client.info("server")["process_id"])
    except redis.RedisError:
        return 0
