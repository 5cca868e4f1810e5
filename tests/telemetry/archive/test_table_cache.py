"""A handle is used again for as long as opening the table anew would come to the same, and stays at its version."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from telemetry.archive import commit_log
from telemetry.archive.operations import commits, log_maintenance
from telemetry.archive.table import Archive, commit_number
from telemetry.archive.table_cache import TableCache
from telemetry.model.errors import IntentChanged
from telemetry.model.utc import day_of

DAY = day_of(1_795_500_000_000_000)


@pytest.fixture
def other(archive: Archive) -> Archive:
    """The same archive as another program has it."""
    return Archive(archive.root)


def test_a_handle_is_the_same_until_the_next_commit_of_anybody(archive: Archive, other: Archive) -> None:
    archive.open()
    first = archive.open()
    assert archive.open() is first
    commits.fence(archive, first, DAY)
    second = archive.open()
    assert (first.version(), second.version()) == (0, 1)
    commits.fence(other, other.open(), DAY)
    assert archive.open().version() == 2


def test_without_a_table_there_is_none(archive: Archive) -> None:
    assert archive.open_existing() is None
    archive.open()
    assert archive.open_existing() is not None
    shutil.rmtree(archive.root)
    assert archive.open_existing() is None


def test_an_archive_that_was_put_in_its_place_is_opened_anew(archive: Archive, tmp_path: Path) -> None:
    commits.commit(archive, archive.open(), [], 0, commit_number("0"), 1)
    elsewhere = Archive(tmp_path / "elsewhere")
    number = commit_number("0")
    commits.commit(elsewhere, elsewhere.open(), [], 0, number, 1)
    assert archive.committed(archive.open(), 0) != number
    shutil.rmtree(archive.root)
    shutil.copytree(elsewhere.root, archive.root)
    assert archive.committed(archive.open(), 0) == number


def test_a_handle_is_not_taken_for_the_newest_where_the_entries_behind_it_were_cleaned_away(
    archive: Archive, other: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.open()
    old = archive.open()
    monkeypatch.setattr(log_maintenance, "CHECKPOINT_COMMITS", 3)
    for _ in range(3):
        commits.fence(other, other.open(), DAY)
    (commit_log.folder(archive.root) / "00000000000000000001.json").unlink()
    assert archive.open() is not old
    assert archive.open().version() == 3


def test_one_that_was_asked_for_a_shards_last_save_finds_a_later_one_whatever_was_done_to_the_log(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.open()
    monkeypatch.setattr(log_maintenance, "CHECKPOINT_COMMITS", 1)
    slow, quick = archive.open(), archive.open()
    assert archive.committed(slow, 0) == "0"
    commits.commit(archive, quick, [], 0, commit_number("0"), 1)
    assert commit_log.newest_checkpoint(commit_log.folder(archive.root)) == 1
    with pytest.raises(IntentChanged):
        commits.commit(archive, slow, [], 0, commit_number("0"), 1)


def test_one_that_was_taken_on_is_opened_anew(archive: Archive, other: Archive) -> None:
    archive.open()
    taken_on = archive.open()
    commits.fence(other, other.open(), DAY)
    taken_on.update_incremental()
    commits.fence(other, other.open(), DAY)
    assert archive.open().version() == 2


def test_an_entry_that_was_touched_is_another(archive: Archive) -> None:
    archive.open()
    first = archive.open()
    os.utime(commit_log.folder(archive.root) / "00000000000000000000.json", (time.time() - 60,) * 2)
    assert archive.open() is not first


def test_nothing_is_remembered_at_first(tmp_path: Path) -> None:
    assert TableCache().newest(tmp_path) is None
