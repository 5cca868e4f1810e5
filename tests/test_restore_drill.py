"""The restore drill: a box under load is backed up, and another one starts from the backup only."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import Box
from tests.senders import Sender, assert_all_once, assert_each_once, post, reasons, wait_until

DEVICES = ("a", "b", "c")
DRAIN_S = 2.0
"""Pause between two runs of `whimbrel drain`, each in a separate process."""


def busy_box(folder: Path) -> Box:
    """One that saves, merges and sweeps all the time."""
    folder.mkdir()
    return Box(
        folder,
        persist__flush_seconds="1",
        archive__max_open_files="4",
        archive__grace_seconds="1",
        api__query_timeout_s="1",
        data__min_free_bytes="0",
    )


@contextlib.contextmanager
def draining(box: Box) -> Iterator[None]:
    """Run `whimbrel drain` repeatedly, in addition to the worker's saves."""
    stop = threading.Event()

    def drain() -> None:
        while not stop.is_set():
            box.json("drain")
            stop.wait(DRAIN_S)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_box_made_of_a_backup_that_was_taken_under_load(tmp_path: Path, is_thorough: bool) -> None:
    """A box is made of the last one; when asked to be thorough, of one before it, too."""
    into = tmp_path / "backups"
    taken = []
    with busy_box(tmp_path / "old") as box, contextlib.ExitStack() as load:
        senders = [load.enter_context(Sender(box, device=device)) for device in DEVICES]
        load.enter_context(draining(box))
        wait_until(lambda: sum("merged" in line and "files into" in line for line in box.output) > 1)
        for _ in range(3):
            acknowledged = {sender: set(sender.acknowledged) for sender in senders}
            taken.append((acknowledged, box.json("backup", str(into))))
            time.sleep(1)
        found = box.json("status")
        assert found["last_backup_path"] == taken[-1][1]["path"]
        assert found["last_backup_age_s"] < 60
    assert [str(path) for path in sorted(into.glob("*Z"))] == [made["path"] for _, made in taken]
    checked = box.json("backup", "--verify", str(into))
    assert checked == {"backups": {made["path"]: [] for _, made in taken}}

    for number, (acknowledged, made) in enumerate(taken[1 if is_thorough else 2 :]):
        folder = tmp_path / f"new-{number}"
        new = busy_box(folder)
        done = new.whimbrel("restore", made["path"])
        assert done.returncode == 0, done.stderr
        assert "Start the box" in done.stdout
        with new:
            assert reasons(new) == []
            for sender, numbers in acknowledged.items():
                assert len(numbers) > 20, sender.device
            assert_each_once(new, folder, {sender.device: numbers for sender, numbers in acknowledged.items()})
            most = max(max(sender.acknowledged) for sender in senders) + 1
            wait_until(lambda new=new, most=most: post(new, most, device="a").status_code == 202)  # type: ignore[misc]
            assert_all_once(new, folder, acknowledged[senders[0]] | {most})
            assert json.loads(new.whimbrel("recover", "--json").stdout)["apart"] == []
