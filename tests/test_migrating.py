"""The programs of docs/migrating.md copy a legacy service, here replaced by another box."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.box import PROJECT, Box

PAGE = (PROJECT / "docs" / "migrating.md").read_text(encoding="utf-8")
PROGRAM = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)[0]
SETS = ("tracking", "tcp_tracking")

pytestmark = pytest.mark.slow


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[Box, Box]]:
    """The older service's part, and Whimbrel."""
    (tmp_path / "older").mkdir()
    (tmp_path / "newer").mkdir()
    with Box(tmp_path / "older") as older, Box(tmp_path / "newer") as newer:
        yield older, newer


def fill(older: Box) -> None:
    """Records of both sets, more than a page of each."""
    records = [
        {
            "device_id": f"bus {n % 3} ü",
            "location": "36.9,30.7" if n % 2 else "Antalya",
            "speed": n / 3,
            "timestamp": f"2026-01-{1 + n % 28:02}T10:25:00.{n:06}Z",
        }
        for n in range(130)
    ]
    assert older.http.post("/tracking/data/", json=records).status_code == 202
    with socket.create_connection(("127.0.0.1", older.tcp_port), timeout=10) as connection:
        connection.sendall(repr(records[:70]).replace("'", '"').encode())
        assert connection.recv(100).startswith(b'{"message": "Data received"')


def everything(box: Box, name: str) -> list[dict[str, Any]]:
    """All records of a set, without their ids."""
    found, address = [], f"/{name}/data/list/"
    while address:
        page = box.http.get(address).json()
        found += [{key: value for key, value in one.items() if key != "id"} for one in page["results"]]
        address = page["next"]
    return found


def test_a_copy_has_the_same_lists(boxes: tuple[Box, Box], tmp_path: Path) -> None:
    older, newer = boxes
    fill(older)
    for name, more in zip(SETS, ((), ("--over", "tcp")), strict=True):
        address = f"http://127.0.0.1:{older.api_port}/{name}/data/list/?start_date=2000-01-01&end_date=2026-11-23"
        lines = subprocess.run([sys.executable, "-c", PROGRAM, address], capture_output=True, check=True).stdout
        (tmp_path / f"{name}.ndjson").write_bytes(lines)
        sent = newer.json("send", str(tmp_path / f"{name}.ndjson"), *more)
        assert sent["accepted"] == len(lines.splitlines())
    for name, count in zip(SETS, (130, 70), strict=True):
        assert everything(newer, name) == everything(older, name)
        assert newer.http.get(f"/{name}/data/list/").json()["count"] == count
