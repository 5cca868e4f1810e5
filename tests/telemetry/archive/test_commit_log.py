"""The archive's log after a power cut: what is torn is taken away, what is whole never."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import DeltaError

from telemetry.archive import commit_log, table
from telemetry.archive.data_files import COMPACTED
from telemetry.archive.operations import commits, log_maintenance
from telemetry.archive.table import Archive, commit_number
from telemetry.model.utc import day_of
from telemetry.system import fsync as durable
from tests.worker.conftest import NOW_US

DAY = day_of(NOW_US)


class Log:
    """An archive with some commits, and its log's files."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.folder = archive.root / "_delta_log"
        archive.open()

    def commit(self, times: int = 1) -> None:
        for _ in range(times):
            commits.fence(self.archive, self.archive.open(), DAY)

    def entry(self, version: int) -> Path:
        return self.folder / f"{version:020}.json"

    def count(self) -> int:
        """How many commits the table knows of."""
        return self.archive.open().transaction_version(f"{COMPACTED}-{DAY}") or 0

    def torn(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.torn"))


@pytest.fixture
def log(archive: Archive) -> Log:
    return Log(archive)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every fifth commit."""
    monkeypatch.setattr(log_maintenance, "CHECKPOINT_COMMITS", 5)


TEARS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut in a line": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "cut between lines": lambda path: path.write_bytes(path.read_bytes().rpartition(b"\n")[0]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("tear", TEARS)
@pytest.mark.parametrize("torn", [3, 2, 1])
def test_a_torn_entry_goes_with_all_behind_it(log: Log, tear: str, torn: int) -> None:
    log.commit(3)
    TEARS[tear](log.entry(torn))
    later = [f"{version:020}.json" for version in range(torn, 4) if log.entry(version).exists()]
    log_maintenance.mend(log.archive)
    assert log.torn() == [f"{name}.torn" for name in later]
    assert log.count() == torn - 1
    log.commit(2)
    assert log.count() == torn + 1


def test_a_torn_entry_would_keep_the_table_shut(log: Log) -> None:
    log.commit(3)
    TEARS["cut in a line"](log.entry(3))
    with pytest.raises(DeltaError):
        log.archive.open()


@pytest.mark.parametrize("tear", TEARS)
def test_a_table_whose_making_was_cut_off_is_made_again(log: Log, tear: str) -> None:
    TEARS[tear](log.entry(0))
    log_maintenance.mend(log.archive)
    log.commit(2)
    assert log.count() == 2


@pytest.mark.parametrize("version", [0, 1])
def test_an_entry_cut_at_any_byte_is_torn(log: Log, version: int) -> None:
    log.commit(1)
    whole = log.entry(version).read_bytes()
    for size in range(0, len(whole), 1 if version else 7):
        log.entry(version).write_bytes(whole[:size])
        assert commit_log.mend(log.folder)[0] == f"{version:020}.json.torn", size
        for torn in log.folder.glob("*.torn"):
            torn.rename(torn.with_suffix(""))
    log.entry(version).write_bytes(whole)
    assert commit_log.mend(log.folder) == []


def test_an_entry_of_another_program_is_whole(log: Log) -> None:
    table = log.archive.open()
    properties = CommitProperties(app_transactions=[Transaction("other", 1)])
    table.create_write_transaction([], "append", table.schema(), partition_by=["date"], commit_properties=properties)
    log_maintenance.mend(log.archive)
    assert log.torn() == []
    assert log.archive.open().transaction_version("other") == 1


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("tear", ["empty", "cut in a line", "zeros", "gone"])
@pytest.mark.parametrize("hint", ["there", "empty", "cut in a line", "gone"])
def test_a_torn_checkpoint_is_done_without(log: Log, tear: str, hint: str) -> None:
    log.commit(7)
    [checkpoint] = log.folder.glob("*.checkpoint.parquet")
    TEARS[tear](checkpoint)
    if hint != "there":
        TEARS[hint](log.folder / "_last_checkpoint")
    log_maintenance.mend(log.archive)
    assert log.count() == 7
    log.commit(5)
    assert log.count() == 12


@pytest.mark.usefixtures("often")
def test_what_a_checkpoint_stands_for_goes_only_when_it_is_on_disk(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_old() -> None:
        for path in log.folder.iterdir():
            os.utime(path, (time.time() - 30 * 86_400,) * 2)

    seen: list[set[str]] = []

    def fsync(path: Path) -> None:
        if path.name.endswith(".checkpoint.parquet"):
            seen.append({entry.name for entry in log.folder.iterdir()})
        durable.fsync(path)

    for _ in range(9):
        log.commit()
        make_old()
    monkeypatch.setattr(commit_log, "fsync", fsync)
    log.commit()
    assert len(seen) == 2, "before and after the second checkpoint"
    assert {log.entry(version).name for version in range(5, 11)} <= seen[-1]
    assert f"{5:020}.checkpoint.parquet" in seen[-1]
    assert not log.entry(9).exists(), "and then it does go"
    assert log.count() == 10
    log_maintenance.mend(log.archive)
    assert log.torn() == []


@pytest.mark.usefixtures("often")
def test_a_live_table_is_never_touched(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others commit, make checkpoints and shorten the log."""
    monkeypatch.setitem(table.CONFIGURATION, "delta.logRetentionDuration", "interval 0 seconds")
    busy = Log(Archive(log.archive.root / "busy"))
    done = threading.Event()

    def mend() -> None:
        while not done.is_set():
            log_maintenance.mend(busy.archive)

    threads = [threading.Thread(target=mend) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        number = "0"
        for _ in range(60):
            number = commit_number(number)
            commits.commit(busy.archive, busy.archive.open(), [], 0, number, NOW_US // 1_000)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert busy.torn() == []
    assert busy.archive.committed(busy.archive.open(), 0) == number
    assert not busy.entry(1).exists(), "the log was shortened meanwhile"
