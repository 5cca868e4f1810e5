"""What the courier keeps is there after any end, all of a change or nothing of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.archive.added_file import NewFile
from worker.courier.delivery import state_db as module
from worker.courier.delivery.state_db import FILE, Progress, Store


def test_progress_is_kept_by_name(store: Store) -> None:
    assert store.progress("hq") is None
    one = Progress(url="s3://b", version=3, digest="d3", backlog=(NewFile("p", 5, 6),), is_ours=True)
    store.keep("hq", one)
    store.keep("other", Progress(url="x"))
    assert store.progress("hq") == one


def test_the_newest_versions_are_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DONE_KEPT", 3)
    for version in range(6):
        store.keep("hq", Progress(url="", version=version, digest=f"d{version}"), [(f"p{version}", version)])
    assert store.done("hq") == [(5, "d5"), (4, "d4"), (3, "d3")]
    assert store.due("hq", 3, 10) == ["p0", "p1", "p2", "p3"]
    store.deleted("hq", ["p1"])
    assert store.due("hq", 3, 2) == ["p0", "p2"]
    store.rewind("hq", Progress(url="", version=4, digest="d4"))
    assert store.done("hq") == [(4, "d4"), (3, "d3")]
    assert store.due("hq", 99, 10) == []


def test_events_wait_in_order_for_each_receiver(store: Store) -> None:
    store.add_events("a", [b"1", b"2"], [(b"car", 7)])
    store.tell_all(["a", "b"], b"3", "ready", False)
    assert [event.body for event in store.events("a", 10)] == [b"1", b"2", b"3"]
    assert store.waiting("b") == 1
    assert store.read("ready", bool) is False
    store.told("a", store.events("a", 2))
    assert [event.body for event in store.events("a", 10)] == [b"3"]
    assert store.told_count("a") == 2
    assert store.silent("a") == {b"car": 7}
    store.add_events("a", [], back=[b"car"])
    assert store.silent("a") == {}
    store.forget_others(["a"])
    assert (store.waiting("a"), store.waiting("b")) == (1, 0)


def test_half_a_change_is_none(store: Store) -> None:
    with pytest.raises(sqlite3.Error):
        store.add_events("a", [b"1"], [(b"car", 1), (b"car", object())])  # type: ignore[list-item]
    assert store.waiting("a") == 0
    assert store.silent("a") == {}
    with pytest.raises(TypeError):
        store.tell_all(["a", "b"], b"1", "ready", object())
    assert store.waiting("a") == store.waiting("b") == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from worker.courier.delivery.state_db import Progress, Store
store = Store(Path(sys.argv[1]))
for number in range(50):
    store.keep("hq", Progress(url="", number=number))
    store.add_events("a", [b"%d" % number], [(b"d%d" % number, number)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_takes_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "c")], timeout=60)
    assert done.returncode == -signal.SIGKILL
    found = Store(tmp_path / "c")
    progress = found.progress("hq")
    assert progress is not None
    assert progress.number == 49
    assert found.waiting("a") == len(found.silent("a")) == 50
    found.close()
    assert os.stat(tmp_path / "c").st_mode & 0o77 == 0, "events and positions are nobody else's"
    assert (tmp_path / "c" / FILE).exists()
