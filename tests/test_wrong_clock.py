"""A whole box whose clock is wrong and then corrected while it runs: it boots in 1970, then runs hours ahead.

Devices have right clocks all the time, but for one that has none. Their records are all taken, each stored once, on its
own day; `latest` is the newest; saves go on; and what was sent before the clock was set is known when it comes again.
"""

from __future__ import annotations

import json
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from benchmarks.crash_ledger.readback import with_duckdb
from benchmarks.crash_ledger.tcp_senders import NOT_NOW, SEEN, STORED
from tests.box import Box
from tests.fake_clock import FakeClock
from tests.senders import reasons, wait_until

pytestmark = pytest.mark.slow

HOUR_S = 3_600
DAY_S = 86_400
BEHIND = "the box's clock is behind"
SAVED_S = 60


class Stand:
    """A box, its clock, and the records that were sent to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(folder)
        self.box = Box(folder, persist__flush_seconds="1", data__min_free_bytes="0")
        self.box.environ |= self.clock.environ
        self.sent: Counter[str] = Counter()

    def post(self, device: str, at: datetime | None, status: int = 202) -> httpx.Response:
        """Send one record over HTTP, and see how it is answered."""
        key = f"{device} {self.sent.total()}"
        record: dict[str, Any] = {"device_id": device, "altitude": self.sent.total(), "key": key}
        if at is not None:
            record["timestamp"] = at.isoformat()
        answer = httpx.post(f"http://127.0.0.1:{self.box.http_port}/v1/records", json=record, timeout=30)
        assert answer.status_code == status, answer.text
        self.sent[key] += status == 202
        return answer

    def frame(self, number: int, at: datetime) -> int:
        """Send one record in a frame of the sender "s"; the status that it is answered with."""
        key = f"frame {number}"
        record = {"device_id": "frames", "altitude": number, "key": key, "timestamp": at.isoformat()}
        data = bytes(msgpack.packb([1, "s", number, [record]]))
        with socket.create_connection(("127.0.0.1", self.box.tcp_port), 30) as device:
            device.sendall(struct.pack(">I", len(data)) + data)
            file = device.makefile("rb")
            _, status, _, _ = msgpack.unpackb(file.read(struct.unpack(">I", file.read(4))[0]))
        self.sent[key] += status == STORED
        return int(status)

    def latest(self, device: str) -> datetime:
        [found] = self.box.http.get("/v1/latest", params={"device_id": device}).json()["records"]
        return datetime.fromisoformat(found["timestamp"])

    def range(self, device: str, since: datetime, until: datetime) -> list[datetime]:
        parameters = {"device_id": device, "start": since.isoformat(), "end": until.isoformat()}
        found = self.box.http.get("/v1/records", params=parameters).json()["records"]
        return [datetime.fromisoformat(record["timestamp"]) for record in found]

    def await_saved(self) -> None:
        """The background jobs do it, whatever the clock shows. The page of the API may show what was a moment ago."""
        wait_until(self._is_saved, SAVED_S)

    def _is_saved(self) -> bool:
        found = self.box.whimbrel("status", "--json").stdout  # its exit status depends on the clock
        return bool(json.loads(found)["unsaved_records"] == 0)

    def _unsaved(self) -> int:
        answer = self.box.http.get("/status", headers={"Accept": "application/json"})
        return int(answer.json()["unsaved_records"])

    def is_serving(self) -> bool:
        try:
            return self.box.http.get("/readyz").status_code == 503 and self._unsaved() >= 0
        except (httpx.TransportError, KeyError):
            return False


@pytest.fixture
def stand() -> Iterator[Stand]:
    """A box that does not run yet."""
    with tempfile.TemporaryDirectory(prefix="clock-") as folder:
        found = Stand(Path(folder))
        try:
            yield found
        finally:
            found.box.http.close()
            found.box.kill()


def now() -> datetime:
    return datetime.now(UTC)


def test_a_clock_that_is_wrong_and_is_set_right(stand: Stand) -> None:
    begun = now()
    first_run(stand)
    boots_in_1970(stand)
    runs_ahead(stand)
    is_set_back(stand)
    assert stand.range("right", begun, now()) == sorted(stand.range("right", begun, now()))
    assert len(stand.range("right", begun, now())) == 4
    assert stand.box.stop() == 0
    rows = with_duckdb(stand.box.data / "archive")
    assert Counter(row.key for row in rows) == +stand.sent
    days = {folder.name for folder in (stand.box.data / "archive").glob("date=*")}
    assert {f"date={begun + timedelta(days=shift):%Y-%m-%d}" for shift in (-3, 0)} | {"date=2000-01-01"} <= days


def first_run(stand: Stand) -> None:
    """All is as it should be."""
    stand.box.start()
    stand.post("right", now())
    assert stand.frame(1, now()) == STORED
    stand.post("future", now() + timedelta(days=2), status=400)
    assert stand.box.stop() == 0


def boots_in_1970(stand: Stand) -> None:
    stand.clock.set(HOUR_S - time.time())
    starting = threading.Thread(target=stand.box.start)  # it is ready only when its clock is right
    starting.start()
    try:
        wait_until(stand.is_serving)
        assert any(BEHIND in reason for reason in reasons(stand.box))
        sent = now()
        stand.post("right", sent)
        stand.post("late", sent - timedelta(days=3))
        stand.post("no clock", None)
        assert stand.frame(1, sent) == SEEN
        assert stand.frame(2, sent) == STORED
        stand.post("future", now() + timedelta(days=2))  # possible
        assert stand.latest("right") == sent
        assert stand.latest("no clock").year == 2000
        stand.await_saved()
        assert stand.latest("right") == sent
    finally:
        stand.clock.set(0)
        starting.join()
    wait_until(lambda: reasons(stand.box) == [], 20)
    assert stand.frame(2, sent) == SEEN, "it is known still, 56 years later"
    stand.post("future", now() + timedelta(days=2), status=400)
    stand.post("no clock", None)
    assert now() - stand.latest("no clock") < timedelta(minutes=1)
    stand.await_saved()


def runs_ahead(stand: Stand) -> None:
    stand.clock.set(3 * HOUR_S)
    sent = now()
    stand.post("right", sent)
    stand.post("future", now() + timedelta(hours=26))
    stand.post("no clock", None)
    assert stand.latest("right") == sent
    assert stand.frame(3, sent) == STORED
    stand.await_saved()


def is_set_back(stand: Stand) -> None:
    """It is reported until the wrong time has passed: the clock could also be slow now."""
    stand.clock.set(0)
    assert stand.frame(3, now()) == SEEN
    assert stand.frame(4, now()) != NOT_NOW
    sent = now()
    stand.post("right", sent)
    stand.post("new", sent)
    assert stand.latest("right") == sent
    wait_until(lambda: any(BEHIND in reason for reason in reasons(stand.box)), 10)
    stand.post("new", now() + timedelta(days=2))
    stand.post("no clock", None)
    assert stand.latest("no clock") - now() > timedelta(hours=2), "the error cannot be detected later"
    stand.await_saved()
    assert stand.latest("right") == sent
