"""Deletion of devices on a whole box: the worker is killed at each step, while devices continue to send."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from telemetry.config.loader import load
from telemetry.coordination import job_queue
from telemetry.coordination.job_queue import persist_queue
from telemetry.hot_store.client import connect
from telemetry.system.failpoints import VARIABLE
from tests.box import Box
from tests.killer import Killer
from tests.senders import wait_until

STEPS = ("settle", "cleanse", "look", "write", "sync", "commit", "make last", "count", "complete")
WAIT_S = 60
GONE, AGAIN, STAYS = "gone/1", "again/ü", "stays"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, wherever tests run."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        yield Path(folder)


def post(box: Box, device: str, number: int) -> None:
    """Send a record, again and again until it is acknowledged once."""
    sent = {"device_id": device, "altitude_m": number, "timestamp": 1_795_500_000 - number % 3 * 86_400}
    headers = {"Idempotency-Key": f"{number}"}
    wait_until(lambda: box.http.post("/v1/records", json=sent, headers=headers).status_code in (200, 202), WAIT_S)


def there(box: Box) -> Counter[tuple[str, int]]:
    page = box.http.get("/v1/records", params={"start": "2000-01-01", "end": "2035-01-01", "limit": "50000"}).json()
    return Counter((one["device_id"], int(one["altitude_m"])) for one in page["records"])


@pytest.mark.slow
def test_it_ends_though_the_worker_is_killed_at_each_step(tmp_path: Path, short_folder: Path) -> None:
    killer = Killer(short_folder, [])
    box = Box(tmp_path / "box", persist__flush_seconds="1", archive__grace_seconds="1")
    box.environ[VARIABLE] = killer.path
    expected, number = Counter[tuple[str, int]](), 0
    with box:
        for _ in range(8):
            for device in (GONE, AGAIN, STAYS):
                post(box, device, number)
                expected[device, number] += 1
                number += 1
            time.sleep(0.5)
        killer.left = [f"delete {step}" for step in STEPS]
        urls = []
        for device in (GONE, AGAIN):
            answer = box.http.delete(f"/v1/devices/{quote(device, safe='')}")
            assert answer.status_code == 202
            urls.append(answer.headers["Location"])
            expected = Counter({content: 1 for content in expected if content[0] != device})
        end_s = time.monotonic() + 4 * WAIT_S
        while killer.left and time.monotonic() < end_s:
            for device in (AGAIN, STAYS):
                post(box, device, number)
                expected[device, number] += 1
                number += 1
            time.sleep(0.2)
        assert killer.left == []
        for url in urls:
            wait_until(lambda: box.http.get(url).json()["state"] == "done", WAIT_S)  # noqa: B023
            found = box.http.get(url).json()
            assert (found["records"], found["quarantined"], found["trouble"]) == (8, 0, None)
        assert there(box) == expected
        assert box.whimbrel("drain").returncode == 0
        assert there(box) == expected
        assert box.http.get("/v1/devices").json()["devices"][0]["device_id"] == AGAIN
        assert_off_disk(box, urls)
        assert there(box) == expected
        assert "whimbrel_deletions_total" in box.http.get("/metrics").text
        assert box.stop() == 0


def assert_off_disk(box: Box, urls: list[str]) -> None:
    """The sweep, which looks every ten minutes, looks now; then no file of the box holds the device in any form."""
    with connect(load(None, box.environ)) as client:
        queue, tick = persist_queue(client), 0

        def is_swept() -> bool:
            nonlocal tick
            tick += 1
            job_queue.enqueue_tidy(queue, tick)
            time.sleep(1)
            return all(box.http.get(url).json()["files_on_disk"] == 0 for url in urls)

        wait_until(is_swept, WAIT_S)
    for path in (box.data / "archive").glob("date=*/*.parquet"):
        assert GONE not in pq.ParquetFile(path).read(["device_id"]).column(0).to_pylist()

    def holding() -> list[Path]:
        """Files with the id, but for the log of the table, and the audit log, which records deletions."""
        but_for = ("_delta_log", "audit")
        found = [path for path in box.data.rglob("*") if path.is_file() and path.parent.name not in but_for]
        return [path for path in found if GONE.encode() in path.read_bytes()]

    wait_until(lambda: not holding(), WAIT_S)
