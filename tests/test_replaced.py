"""Redis or the archive is replaced under a running box: it reports this, damages no data, and can be repaired."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.loader import load
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect, raw_entries
from telemetry.startup.store_setup import NO_ARCHIVE, set_up
from telemetry.system import clock
from tests.box import Box
from tests.conftest import running_redis
from tests.senders import post, reasons, server_pid, wait_until
from tests.worker.conftest import Ledger
from worker.saving.saver import Saver

APART = "the archive's last commit is "

pytestmark = pytest.mark.slow


class Stand:
    """A running box whose stores are exchanged. A test has a device of its own, and mends what it broke."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self.folder = folder
        self.aof = box.data / "redis" / "appendonlydir"
        self.archive = box.data / "archive"
        self.client = connect(load(environ=box.environ))

    def send(self, device: str, *numbers: int) -> None:
        """Send records, which must be acknowledged in the end."""
        for number in numbers:
            wait_until(lambda number=number: post(self.box, number, device=device).status_code == 202, 30)  # type: ignore[misc]

    def send_and_save(self, device: str, *numbers: int) -> None:
        self.send(device, *numbers)
        wait_until(lambda: hot.attach(self.client, 1)[0].unsaved() == 0, 30)

    def copy(self, name: str) -> Path:
        """Both stores as they are now."""
        folder = self.folder / name
        shutil.copytree(self.aof, folder / "aof")
        shutil.copytree(self.archive, folder / "archive")
        return folder

    def replace_redis(self, aof: Path | None) -> None:
        """Kill Redis, which is started again at once on a copy of another AOF, or on none."""
        before = server_pid(self.box)
        self.aof.rename(self.folder / f"aof-{before}")
        if aof is not None:
            shutil.copytree(aof, self.aof)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: server_pid(self.box) not in (0, before), 30)

    def replace_archive(self, archive: Path) -> None:
        self.archive.rename(self.folder / f"archive-{clock.now_ms()}")
        shutil.copytree(archive, self.archive)

    def history(self, device: str) -> Any:
        return self.box.http.get("/v1/records", params={"device_id": device})

    def numbers(self, device: str) -> list[int]:
        """The history of a device, once it can be read."""
        wait_until(lambda: self.history(device).status_code == 200, 20)
        records = self.history(device).json()["records"]
        assert len({record["id"] for record in records}) == len(records)
        return sorted(int(record["altitude_m"]) for record in records)

    def said(self, text: str, start: int) -> bool:
        """True if the log has the text after line `start`."""
        return any(text in line for line in self.box.output[start:])


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    with Box(folder, persist__flush_seconds="1", data__min_free_bytes="0") as box:
        yield Stand(box, folder)
        assert box.stop() == 0


def assert_apart(stand: Stand, device: str, number: int, why: str) -> None:
    """Senders and operators are notified; records are accepted, and nothing is saved."""
    start, archive = len(stand.box.output), listing(stand.archive)
    stand.send(device, number)
    wait_until(lambda: any(why in reason for reason in reasons(stand.box)), 20)
    [reason] = [one for one in reasons(stand.box) if why in one]
    assert "not saving until `whimbrel recover` has repaired it" in reason
    answer = stand.history(device)
    assert (answer.status_code, answer.json()["detail"]) == (
        503,
        "Redis and archive don't belong together: `whimbrel recover` says what can be done",
    )
    wait_until(lambda: stand.said(f"nothing is saved: {why}", start), 30)
    done = stand.box.whimbrel("doctor")
    assert done.returncode == 1
    assert f"failure  archive       {why}" in done.stdout
    assert stand.box.http.get(f"/v1/devices/{device}/latest").json()["altitude_m"] == number
    assert listing(stand.archive) == archive


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def recover(stand: Stand) -> None:
    """Repair it as the messages describe."""
    asked = stand.box.whimbrel("recover")
    assert asked.returncode == 1
    assert "`whimbrel recover --yes` drops from Redis what the archive has" in asked.stderr
    assert stand.box.whimbrel("recover", "--yes").returncode == 0
    wait_until(lambda: reasons(stand.box) == [], 30)


def test_an_empty_redis_goes_on_where_the_archive_ends(stand: Stand) -> None:
    start = len(stand.box.output)
    stand.send_and_save("emptied", 1, 2)
    stand.replace_redis(None)
    stand.send("emptied", 3)
    wait_until(lambda: reasons(stand.box) == [], 30)
    assert stand.said("read the latest of", start)
    assert stand.numbers("emptied") == [1, 2, 3]
    stand.send_and_save("emptied", 4)
    stand.client.flushall()
    stand.send_and_save("emptied", 5)
    wait_until(lambda: reasons(stand.box) == [], 30)
    assert stand.numbers("emptied") == [1, 2, 3, 4, 5]


def test_an_older_redis(stand: Stand) -> None:
    stand.send_and_save("older", 1, 2)
    old = stand.copy("older")
    stand.send_and_save("older", 3)
    stand.replace_redis(old / "aof")
    assert_apart(stand, "older", 4, APART)
    recover(stand)
    stand.send_and_save("older", 5)
    assert stand.numbers("older") == [1, 2, 3, 4, 5]


def test_a_redis_that_holds_what_was_saved_since(stand: Stand) -> None:
    stand.send("again", 1)  # perhaps saved before the copy is made, and perhaps not
    old = stand.copy("again")
    stand.send_and_save("again", 2)
    stand.replace_redis(old / "aof")
    assert_apart(stand, "again", 3, APART)
    recover(stand)
    stand.send_and_save("again", 4)
    assert stand.numbers("again") == [1, 2, 3, 4]


def test_the_redis_of_another_box(stand: Stand) -> None:
    stand.send_and_save("mine", 1, 2)
    ledger, archive = Ledger(), Archive(stand.folder / "theirs")
    with running_redis() as server, server.client() as client:
        raw_entries(client)
        [shard] = set_up(client, archive, 1)
        ledger.append(shard, ["saved there", "saved there"])
        Saver(archive, open_duckdb(), clock.now_ms).save(shard)
        ledger.append(shard, ["theirs", "theirs"])
        server.kill()
        stand.replace_redis(server.folder / "appendonlydir")
    assert_apart(stand, "mine", 3, APART)
    recover(stand)
    stand.send_and_save("mine", 4)
    assert stand.numbers("mine") == [1, 2, 3, 4]
    assert stand.numbers("theirs") == [2, 3], "what the other box had not saved is saved here"
    assert stand.numbers("saved there") == []


def test_no_archive_any_more_until_it_is_back(stand: Stand) -> None:
    stand.send_and_save("moved", 1, 2)
    away = stand.archive.rename(stand.folder / "away")
    assert_apart(stand, "moved", 3, NO_ARCHIVE)
    assert not stand.archive.exists(), "no program has created a new one"
    away.rename(stand.archive)
    wait_until(lambda: reasons(stand.box) == [], 30)
    stand.send_and_save("moved", 4)
    assert stand.numbers("moved") == [1, 2, 3, 4]


def test_no_archive_for_good(stand: Stand) -> None:
    stand.send_and_save("gone", 1, 2)
    shutil.rmtree(stand.archive)
    assert_apart(stand, "gone", 3, NO_ARCHIVE)
    recover(stand)
    stand.send_and_save("gone", 4)
    assert stand.numbers("gone") == [3, 4]
    assert stand.box.http.get("/v1/devices/gone/latest").json()["altitude_m"] == 4


def test_an_older_archive(stand: Stand) -> None:
    stand.send_and_save("restored", 1, 2)
    old = stand.copy("restored")
    stand.send_and_save("restored", 3)
    stand.replace_archive(old / "archive")
    assert_apart(stand, "restored", 4, APART)
    recover(stand)
    stand.send_and_save("restored", 5)
    assert stand.numbers("restored") == [1, 2, 4, 5], "only the lost archive had 3"
