"""What has yet to be forwarded stays: log entries, and the files that they add."""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb
import pytest

from compactor.compaction import Compactor, Sweep
from telemetry.archive import commit_log
from telemetry.archive.log_retention import NOTHING_DONE, holds_entries
from telemetry.archive.operations import commits, log_maintenance
from telemetry.archive.table import Archive, commit_number
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.coordination.forward_progress import held_by
from telemetry.hot_store.shard import Shard
from telemetry.system import clock
from tests.conftest import settings_of
from tests.worker.conftest import Ledger
from worker.saving.saver import Saver

TWO_DAYS_S = 2 * 86_400


class Done:
    """What tells how far forwards are."""

    def __init__(self, version: int | None) -> None:
        self.version = version

    def __call__(self) -> int | None:
        return self.version


def entries_after_two_days(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Commit as often as it takes for a checkpoint, all entries being two days old."""
    monkeypatch.setattr(log_maintenance, "CHECKPOINT_COMMITS", 5)
    log, number = commit_log.folder(archive.root), "0"
    archive.open()
    for _ in range(12):
        number = commit_number(number)
        commits.commit(archive, archive.open(), [], 0, number, 1)
        for file in log.glob("*.json"):
            os.utime(file, (time.time() - TWO_DAYS_S,) * 2)
    return commit_log.entries(log)


@pytest.mark.parametrize("done", [None, 20])
def test_the_log_is_cleaned_once_all_is_done(
    done: int | None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = entries_after_two_days(Archive(settings.archive_dir, held=Done(done)), monkeypatch)
    assert entries[0] > 0


@pytest.mark.parametrize("done", [NOTHING_DONE, 0, 3])
def test_no_entry_is_cleaned_that_is_not_done(done: int, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(settings.archive_dir, held=Done(done))
    assert entries_after_two_days(archive, monkeypatch) == list(range(13))
    assert archive.open().version() == 12


def test_entries_that_no_cleaning_takes_are_not_in_its_way(tmp_path: Path) -> None:
    (tmp_path / f"{7:020}.json").write_text("{}")
    now_s = time.time()
    assert not holds_entries(tmp_path, 6, lambda: now_s)
    assert holds_entries(tmp_path, 6, lambda: now_s + TWO_DAYS_S)
    assert holds_entries(tmp_path, 6, lambda: now_s - TWO_DAYS_S), "the clock was set back"
    assert not holds_entries(tmp_path, 7, lambda: now_s + TWO_DAYS_S)


def test_the_sweep_leaves_the_files_of_a_version_that_is_not_done(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger, saver = Ledger(), Saver(archive, connection, clock.now_ms)
    for _ in range(3):
        ledger.append(shard, ["a"])
        saver.save(shard)
    saved = set(archive.files(archive.open()))
    done, now_s = Done(NOTHING_DONE), [0.0]
    sweep = Sweep(archive, list, lambda: now_s[0], 10, held=done)
    Compactor(archive, lambda: connection, clock.now_us, is_all=True).compact()
    merged_at = archive.open().version()
    for version in (NOTHING_DONE, merged_at - 1):
        done.version = version
        now_s[0] += 100
        assert sweep.sweep() == []
    done.version = merged_at
    assert set(sweep.sweep()) == saved


def test_how_far_all_are_is_what_the_slowest_is(settings: Settings, shard: Shard) -> None:
    two = '[{"name": "a", "url": "s3://a"}, {"name": "b", "url": "s3://b"}]'
    with_two = settings_of(settings.redis.url, settings.data_dir.parent, forward=two)
    held = held_by(with_two)
    assert held_by(settings)() is None
    assert held() == NOTHING_DONE
    a, b, c = (
        shared_state.ForwardProgress(name, "s3://x", 1, version) for name, version in (("a", 7), ("b", 5), ("c", 1))
    )
    shared_state.note_forwards(shard.client, [a, c])
    assert held() == NOTHING_DONE, "b has not begun"
    shared_state.note_forwards(shard.client, [a, b, c])
    assert held() == 5
    assert held_by(settings_of("unix:///nowhere", settings.data_dir.parent, forward=two))() == NOTHING_DONE
