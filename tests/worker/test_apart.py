"""An archive that is gone, older or another while Redis lives on, and a Redis that is empty: nothing goes on by itself
that would hide a loss, and no reader begins an archive."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import redis

from api.snapshot.snapshot import Snapshots, Wanted
from telemetry.archive.operations import commits
from telemetry.archive.table import Archive, commit_number
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Flush, Shard
from telemetry.model.errors import NotTogether, OtherStoreError
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.startup.store_setup import NO_ARCHIVE, apart, set_up
from telemetry.system import clock
from tests.worker.conftest import Ledger, archived, waiting
from tests.worker.saving.test_saver import DEVICES, drain, saver, stop_at
from tests.worker.stopping import Stop
from worker.jobs import Work
from worker.saving.latest_rebuild import rebuild
from worker.saving.saver import Saver


def gone(archive: Archive, _old: Path) -> None:
    shutil.rmtree(archive.root)


def older(archive: Archive, old: Path) -> None:
    shutil.rmtree(archive.root)
    shutil.copytree(old, archive.root)


def another(archive: Archive, _old: Path) -> None:
    shutil.rmtree(archive.root)
    commits.commit(archive, archive.open(), [], 0, commit_number("0"), clock.now_ms())


@pytest.mark.parametrize("step", ["intend", "read", "write", "open", "commit"])
@pytest.mark.parametrize("replace", [gone, older, another])
def test_a_save_that_was_cut_off_does_not_go_on_in_another_archive(
    replace: Callable[[Archive, Path], None],
    step: str,
    shard: Shard,
    archive: Archive,
    ledger: Ledger,
    tmp_path: Path,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    ledger.append(shard, ["a"])
    drain(shard, archive)
    shutil.copytree(archive.root, tmp_path / "old")
    ledger.append(shard, ["a", "b"])
    drain(shard, archive)
    ledger.append(shard, ["c"])
    with pytest.raises(Stop):
        saver(archive, stop_at(step)).save(shard)
    before = shard.state()
    shutil.copytree(archive.root, tmp_path / "right")
    replace(archive, tmp_path / "old")
    for _ in range(2):
        with pytest.raises(NotTogether, match="whimbrel recover"):
            saver(archive).save(shard)
    assert apart(shard, archive)
    assert shard.state() == before
    assert waiting(shard) == {("c", 3): 1}
    if archive.root.exists():
        shutil.rmtree(archive.root)
    (tmp_path / "right").rename(archive.root)
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


def test_a_save_that_is_trimmed_in_part_does_not_go_on_in_the_archive_of_before_it(
    shard: Shard, archive: Archive, ledger: Ledger, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """Redis still names the save that this archive ends with, but what is trimmed would be missing without a word."""
    ledger.append(shard, DEVICES)
    drain(shard, archive)
    shutil.copytree(archive.root, tmp_path / "old")
    ledger.append(shard, DEVICES)
    with pytest.raises(Stop):
        saver(archive, stop_at("finish 1")).save(shard)
    archive.root.rename(tmp_path / "right")
    shutil.copytree(tmp_path / "old", archive.root)
    with pytest.raises(NotTogether, match=r"has trimmed part of it.*whimbrel recover"):
        saver(archive).save(shard)
    assert apart(shard, archive)
    shutil.rmtree(archive.root)
    (tmp_path / "right").rename(archive.root)
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


def test_an_archive_that_is_gone_before_anything_was_saved_is_begun_anew(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, ["a"])
    with pytest.raises(Stop):
        saver(archive, stop_at("write")).save(shard)
    shutil.rmtree(archive.root)
    assert apart(shard, archive) is None
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


def test_no_reader_begins_an_archive(
    shard: Shard,
    client: redis.Redis,
    archive: Archive,
    ledger: Ledger,
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    ledger.append(shard, ["a"])
    drain(shard, archive)
    shutil.rmtree(archive.root)
    snapshots = Snapshots(lambda: hot.pinned(connect(settings), 1), archive)
    assert apart(shard, archive) == NO_ARCHIVE
    with pytest.raises(NotTogether):
        snapshots.take(Wanted([], EARLIEST_US, LATEST_US))
    rebuild(shard, archive, connection)
    set_up(client, archive, 1)
    with pytest.raises(NotTogether, match="there is no archive"):
        saver(archive).save(shard)
    assert not archive.root.exists()


def test_a_worker_that_looks_sets_an_emptied_redis_up(
    shard: Shard, client: redis.Redis, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    work = Work(client, archive, connection, Saver(archive, connection, clock.now_ms), 1, Flush(1, 2**20))
    work.begin()
    ledger.append(shard, ["a"])
    work.save_shard(0)
    client.flushall()
    work.look()
    [new] = hot.attach(client, 1)
    assert shared_state.WORKER in shared_state.heartbeats(client)
    assert apart(new, archive) is None
    assert new.latest([b"a"]) != [None]
    with pytest.raises(OtherStoreError):
        ledger.append(shard, ["a"])
