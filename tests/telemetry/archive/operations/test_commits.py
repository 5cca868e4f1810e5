"""Commits: a handle from before is refused, shards are independent, and all is synced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from telemetry.archive.operations import commits
from telemetry.archive.schema import columns
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.entry_codec import Block
from telemetry.model.errors import IntentChanged
from tests.telemetry.archive.test_table import NOW_US, save, stored


def test_a_second_handle_from_before_is_refused(archive: Archive) -> None:
    before = archive.open()
    number = save(archive, stored(1))
    with pytest.raises(IntentChanged):
        commits.commit(archive, before, [], 0, commit_number("0"), NOW_US // 1_000)
    assert archive.committed(archive.open(), 0) == number


def test_another_shard_commits_beside_it(archive: Archive) -> None:
    before = archive.open()
    first, second = commit_number("0"), commit_number("0")
    commits.commit(archive, archive.open(), [], 0, first, NOW_US // 1_000)
    commits.commit(archive, before, [], 1, second, NOW_US // 1_000)
    table = archive.open()
    assert (archive.committed(table, 0), archive.committed(table, 1)) == (first, second)
    assert archive.committed(table, 2) == "0"


def test_what_is_committed_was_synced_before(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.open()
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(archive.root.resolve())))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    number = commit_number("0")
    [file] = archive.data_files.write(columns([Block.of(stored(1))]), number)
    assert synced[0] == file.path
    assert set(synced[1:]) == {str(Path(file.path).parent), "."}
    synced.clear()
    commits.commit(archive, archive.open(), [file], 0, number, NOW_US // 1_000)
    assert synced[-1] == "_delta_log"
    assert f"_delta_log/{1:020}.json" in synced
