"""`recover`: a box whose Redis and archive don't belong together, mended at whatever step it was cut off."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest
import redis

from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.entry_codec import Unreadable, decode_latest, read_entry
from telemetry.hot_store.operations.latest_rebuild import must_rebuild
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import IntentChanged, NotTogether, OtherStoreError
from telemetry.startup.store_setup import apart as why_apart
from telemetry.system import clock
from tests.worker.conftest import Ledger, archived, waiting
from tests.worker.stopping import Stop
from worker.recovery import recover
from worker.saving.saver import Saver

STEPS = ("fence", "take over", "replace a", "replace c", "reopen")


def restore(client: redis.Redis, keys: dict[bytes, bytes]) -> None:
    """Put back what `dump` took: a Redis as it was then."""
    client.flushall()
    for key, value in keys.items():
        client.restore(key, 0, value)


def dump(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: value for key in client.scan_iter() if (value := client.dump(key)) is not None}


@pytest.fixture
def apart(shard: Shard, archive: Archive, ledger: Ledger) -> Shard:
    """A shard whose Redis was restored from before its last save, and got new records since."""
    saver = Saver(archive, open_duckdb(), clock.now_ms)
    ledger.append(shard, ["a", "b"])
    saver.save(shard)
    ledger.append(shard, ["a", "c"])
    old = dump(shard.client)
    saver.save(shard)
    restore(shard.client, old)
    ledger.append(shard, ["a", "d"])
    return shard


def check_mended(shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection) -> None:
    [mended] = hot.attach(shard.client, 1)
    assert not why_apart(mended, archive)
    assert not must_rebuild(mended)
    check_latest(mended, archive, connection)
    assert archived(connection, archive) + waiting(mended) == ledger.acknowledged
    ledger.append(mended, ["a", "e"])
    saver = Saver(archive, open_duckdb(), clock.now_ms)
    while mended.unsaved():
        saver.save(mended)
    assert archived(connection, archive) == ledger.acknowledged
    files = archive.files(archive.open())
    [(ids, rows)] = connection.execute("SELECT count(DISTINCT id), count(*) FROM read_parquet($1)", [files]).fetchall()
    assert ids == rows


def check_latest(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    """Latest is the newest record of archive and tail, under the id that it has there."""
    newest: dict[str, tuple[int, int]] = {}
    for record in [*archived_records(connection, archive), *tail_records(shard)]:
        newest[record[0]] = max(newest.get(record[0], (0, 0)), record[1:])
    for device, (_, record_id) in newest.items():
        value = shard.client.hget(shard.keys.latest, device)
        assert value is not None
        assert decode_latest(value).newest.id == record_id  # type: ignore[arg-type, union-attr]


def archived_records(connection: duckdb.DuckDBPyConnection, archive: Archive) -> list[tuple[str, int, int]]:
    files = archive.files(archive.open())
    sql = "SELECT device_id, epoch_us(timestamp), id FROM read_parquet($1)"
    return connection.execute(sql, [files]).fetchall()


def tail_records(shard: Shard) -> list[tuple[str, int, int]]:
    found = []
    for device in shard.all_dirty():
        for raw in shard.entries([(device, "-", "+")])[0]:
            found += [(device, s.record.timestamp_us, s.id) for s in read_entry(device, raw, 1)]
    return found


def test_what_the_archive_has_is_dropped_and_the_rest_is_kept(
    apart: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    assert why_apart(apart, archive)
    arrivals = [read_entry("d", raw, 1)[0].received_ms for raw in apart.entries([("d", "-", "+")])[0]]
    done = recover(apart, archive, open_duckdb(), clock.now_ms())
    assert (done.dropped, done.kept) == (2, 2)
    assert [read_entry("d", raw, 1)[0].received_ms for raw in apart.entries([("d", "-", "+")])[0]] == arrivals
    check_mended(apart, archive, ledger, connection)


@pytest.mark.parametrize("step", STEPS)
def test_cut_off_at_any_step_it_begins_anew(
    step: str, apart: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    def reached(at: str) -> None:
        if at == step:
            raise Stop

    with pytest.raises(Stop):
        recover(apart, archive, open_duckdb(), clock.now_ms(), reached)
    [shard] = hot.attach(apart.client, 1)
    assert why_apart(shard, archive)
    recover(shard, archive, open_duckdb(), clock.now_ms())
    check_mended(shard, archive, ledger, connection)


def test_programs_that_know_the_old_store_are_stopped(apart: Shard, archive: Archive, ledger: Ledger) -> None:
    old = Shard(apart.client, 0, apart.store_id, 1)
    recover(apart, archive, open_duckdb(), clock.now_ms())
    with pytest.raises(OtherStoreError):
        ledger.append(old, ["z"])
    with pytest.raises(OtherStoreError):
        Saver(archive, open_duckdb(), clock.now_ms).save(old)


@pytest.mark.parametrize("step", ["read", "write", "commit"])
def test_a_worker_that_was_under_way_can_not_commit_after_it(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    """Redis is restored under a worker, and recovered, before it goes on."""

    def reached(at: str) -> None:
        if at == step:
            restore(shard.client, old)
            [restored] = hot.attach(shard.client, 1)
            recover(restored, archive, open_duckdb(), clock.now_ms())

    saver = Saver(archive, open_duckdb(), clock.now_ms)
    ledger.append(shard, ["a"])
    saver.save(shard)
    old_ledger = ledger.acknowledged.copy()
    old = dump(shard.client)
    ledger.append(shard, ["b"])
    with pytest.raises((IntentChanged, NotTogether, OtherStoreError)):
        Saver(archive, open_duckdb(), clock.now_ms, reached=reached).save(shard)
    assert archived(connection, archive) == old_ledger, "what only the lost Redis held is lost, and nothing doubled"


def test_an_older_archive_beside_a_living_redis(
    shard: Shard, archive: Archive, ledger: Ledger, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    saver = Saver(archive, open_duckdb(), clock.now_ms)
    ledger.append(shard, ["a"])
    saver.save(shard)
    kept = ledger.acknowledged.copy()
    shutil.copytree(archive.root, tmp_path / "old")
    ledger.append(shard, ["b"])
    saver.save(shard)
    shutil.rmtree(archive.root)
    (tmp_path / "old").rename(archive.root)
    ledger.acknowledged = kept
    ledger.append(shard, ["c"])
    assert why_apart(shard, archive)
    recover(shard, archive, open_duckdb(), clock.now_ms())
    check_mended(shard, archive, ledger, connection)


def test_a_record_that_can_not_be_read_is_kept_as_it_is(apart: Shard, archive: Archive) -> None:
    apart.client.xadd(apart.keys.stream("d"), {"i": "900", "r": b"\xc1"})
    apart.client.incr(apart.keys.unsaved)
    recover(apart, archive, open_duckdb(), clock.now_ms())
    bad: list[Unreadable] = []
    for raw in apart.entries([("d", "-", "+")])[0]:
        read_entry("d", raw, 1, bad.append)
    assert [one.raw[-1:] for one in bad] == [b"\xc1"]
