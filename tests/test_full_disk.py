"""A whole box on a disk that fills up: it rejects writes in time, and loses no acknowledged record."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import PROJECT, STOP_S, Box
from tests.senders import Sender, assert_all_once, post, reasons, server_pid, tcp_answer, wait_until
from tests.small_disk import SmallDisk, small_disk

MIN_FREE = 32 * 2**20
NOTE = "n" * 2_000

pytestmark = pytest.mark.slow


def test_below_its_mark_all_is_refused_in_words_until_there_is_room_again(disk: SmallDisk) -> None:
    with Box(disk.path, data__min_free_bytes=str(MIN_FREE), persist__flush_seconds="1") as box:
        assert post(box, 1, NOTE).status_code == 202
        disk.leave(MIN_FREE - 2**20)
        wait_until(lambda: post(box, 2, NOTE).status_code == 503)
        refused = post(box, 3, NOTE)
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
        assert post(box, 4, NOTE).status_code == 503, "a little more room is not enough"
        assert reasons(box) != []
        disk.release()
        wait_until(lambda: post(box, 5, NOTE).status_code == 202)
        assert reasons(box) == []
        assert tcp_answer(box)["accepted"] == 1
        assert box.stop() == 0


@pytest.mark.parametrize(
    "min_free_bytes",
    [pytest.param(MIN_FREE, id="with a mark", marks=pytest.mark.thorough), pytest.param(0, id="without one")],
)
def test_a_disk_full_to_the_last_byte_costs_no_acknowledged_record(
    min_free_bytes: int, disk: SmallDisk, tmp_path: Path
) -> None:
    """Redis exits at its next write. It is started again, and its AOF has all acknowledged writes."""
    with Box(disk.path, data__min_free_bytes=str(min_free_bytes), persist__flush_seconds="1") as box:
        with Sender(box, NOTE) as sender:
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


# An archive that takes no files ----------------------------------------------------------------------


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextlib.contextmanager
def full(disk: SmallDisk) -> Iterator[None]:
    disk.fill()
    try:
        yield
    finally:
        disk.release()


@contextlib.contextmanager
def read_only(disk: SmallDisk) -> Iterator[None]:
    mount("-o", "remount,ro", str(disk.path))
    try:
        yield
    finally:
        mount("-o", "remount,rw", str(disk.path))


@contextlib.contextmanager
def read_only_log(disk: SmallDisk) -> Iterator[None]:
    """Files can be written, and not committed."""
    log = str(disk.path / "_delta_log")
    mount("--bind", log, log)
    mount("-o", "remount,bind,ro", log)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", log], check=True)


FAULTS = {
    "its disk is full": (full, "No space left on device"),
    "it is read-only": (read_only, "Read-only file system"),
    "its log is read-only": (read_only_log, "Read-only file system"),
}


@pytest.fixture(scope="module")
def archive_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Box, SmallDisk]]:
    """A box whose archive has a disk of its own."""
    box = Box(tmp_path_factory.mktemp("apart"), persist__flush_seconds="1", data__min_free_bytes="0")
    box.data.mkdir()
    with small_disk(box.data / "archive", 16) as disk, box:
        yield box, disk
        assert box.stop() == 0


@pytest.mark.parametrize("name", FAULTS)
def test_while_the_archive_takes_no_files_records_wait_in_redis_and_the_reason_is_told(
    name: str, archive_apart: tuple[Box, SmallDisk], tmp_path: Path
) -> None:
    box, disk = archive_apart
    fault, why = FAULTS[name]
    start = len(box.output)
    with Sender(box, device=name) as sender:
        wait_until(lambda: len(sender.acknowledged) > 100)
        with fault(disk):
            wait_until(lambda: reasons(box) != [])
            [reason] = reasons(box)
            assert reason.startswith("cannot save shard 0, its records wait in Redis: ")
            assert why in reason
            assert any("cannot save, its records wait in Redis" in line and why in line for line in box.output[start:])
            done = box.whimbrel("doctor")
            assert done.returncode == 1
            assert f"failure  archive       {reason.partition(',')[0]}" in done.stdout
            before = len(sender.acknowledged)
            wait_until(lambda: len(sender.acknowledged) > before + 100)
        wait_until(lambda: reasons(box) == [])
    assert (sender.others, sender.refused) == (set(), 0), "all are taken meanwhile"
    assert_all_once(box, tmp_path, sender.acknowledged, name)


# The log ---------------------------------------------------------------------------------------------


def test_a_full_disk_of_the_log_stops_nothing_and_later_lines_are_written(disk: SmallDisk, tmp_path: Path) -> None:
    log = disk.path / "log"
    box = Box(tmp_path, persist__flush_seconds="1", data__min_free_bytes="0", log__level="debug")
    with log.open("wb") as file:
        up = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up"], cwd=PROJECT, env=box.environ, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: up.poll() is not None or b"Whimbrel is ready: " in log.read_bytes())
        disk.fill()
        for _ in range(2):
            restart_redis(box)  # has a lot to say
        size = log.stat().st_size
        wait_until(lambda: post(box, 1).status_code == 202)
        disk.release()
        restart_redis(box)
        wait_until(lambda: b"Ready to accept connections" in log.read_bytes()[size:])
        up.terminate()
        assert up.wait(STOP_S) == 0
    finally:
        up.kill()
        up.wait()
        box.http.close()


def restart_redis(box: Box) -> None:
    before = server_pid(box)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: server_pid(box) not in (0, before))
