"""Checkpoints of the table's log: when they are made."""

from __future__ import annotations

import pytest

from telemetry.archive import commit_log
from telemetry.archive.operations import commits, log_maintenance
from telemetry.archive.table import Archive, commit_number
from tests.telemetry.archive.test_table import NOW_US


def test_checkpoints_come_by_themselves_and_are_synced(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_maintenance, "CHECKPOINT_COMMITS", 5)
    number = "0"
    synced: set[str] = set()
    archive.open()
    monkeypatch.setattr(commit_log, "fsync", lambda path: synced.add(path.name))
    for _ in range(7):
        number = commit_number(number)
        commits.commit(archive, archive.open(), [], 0, number, NOW_US // 1_000)
    [checkpoint] = (archive.root / "_delta_log").glob("*.checkpoint.parquet")
    assert checkpoint.name in synced
    assert "_last_checkpoint" in synced
    assert archive.committed(archive.open(), 0) == number


def test_the_larger_a_checkpoint_the_later_comes_the_next(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_maintenance, "FEWEST_COMMITS", 3)
    log, number = commit_log.folder(archive.root), "0"
    for _ in range(12):
        number = commit_number(number)
        commits.commit(archive, archive.open(), [], 0, number, NOW_US // 1_000)
        if (before := commit_log.newest_checkpoint(log)) > 0:  # of the size of four commits
            monkeypatch.setattr(log_maintenance, "COMMIT_BYTES", commit_log.checkpoint_bytes(log, before) // 4)
    assert commit_log.checkpoints(log) == [3, 7, 11]
