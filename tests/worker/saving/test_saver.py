"""Saving exactly once: whatever stops at whatever step, and however two workers meet."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import duckdb
import pyarrow.parquet as pq
import pytest
import redis

from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import Intent, Range, RawEntry, count_of, pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import IntentChanged, NotTogether
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Sent
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from tests.conftest import RedisServer, settings_of
from tests.worker.conftest import NOW_US, Ledger, archived, waiting
from tests.worker.stopping import Stop
from worker.saving.save_budget import Bounds
from worker.saving.saver import Saver

STEPS = ("look", "intend", "read", "still", "write", "open", "commit", "finish", "finish 0", "finish 1")
DEVICES = [f"device-{number:04}" for number in range(600)]
"""More than one chunk of a trim."""


def saver(archive: Archive, reached: Callable[[str], None] = lambda step: None, bounds: Bounds | None = None) -> Saver:
    return Saver(archive, open_duckdb(), clock.now_ms, bounds, reached=reached)


def stop_at(wanted: str) -> Callable[[str], None]:
    def reached(step: str) -> None:
        if step == wanted:
            raise Stop(step)

    return reached


def drain(shard: Shard, archive: Archive) -> None:
    found = saver(archive)
    while shard.unsaved() or shard.state().intent:
        found.save(shard)


def test_a_save_moves_the_tail_into_sorted_daily_files(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, ["b", "a", "b", "c"], days=2)
    assert saver(archive).save(shard) == 4
    assert waiting(shard) == {}
    assert shard.unsaved() == 0
    assert archived(connection, archive) == ledger.acknowledged
    table = archive.open()
    assert archive.committed(table, 0) == shard.state().committed
    files = [Path(file) for file in archive.files(table)]
    assert {file.parent.name for file in files} == {"date=2026-11-23", "date=2026-11-24"}
    for file in files:
        rows = pq.ParquetFile(file).read(["device_id", "timestamp", "id"]).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["device_id"], row["timestamp"], row["id"]))
    assert saver(archive).save(shard) == 0, "nothing waits: nothing is committed"
    assert archive.open().version() == table.version()


def test_the_log_knows_exact_bounds_so_that_no_file_is_skipped_wrongly(
    shard: Shard, archive: Archive, ledger: Ledger
) -> None:
    ledger.append(shard, ["m"] * 3, days=3)
    saver(archive).save(shard)
    table = archive.open()
    files = archive.live(table)

    def count(start_us: int, end_us: int, *devices: str) -> int:
        return sum(file.may_hold(start_us, end_us, devices) for file in files)

    assert len(files) == 3
    assert count(NOW_US, NOW_US + 1) == 1
    assert count(NOW_US + 1_000_000, NOW_US + 2_000_000) == 0
    assert count(EARLIEST_US, LATEST_US, "m") == 3
    assert count(EARLIEST_US, LATEST_US, "l", "l2") == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_ends_at_any_step_loses_and_doubles_nothing(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, DEVICES)
    with pytest.raises(Stop):
        saver(archive, stop_at(step)).save(shard)
    ledger.append(shard, DEVICES[::2])
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    assert waiting(shard) == {}
    assert shard.unsaved() == 0


@pytest.mark.parametrize("step", STEPS)
def test_records_that_are_sent_again_are_known_whatever_step_a_worker_ended_at(
    step: str, shard: Shard, archive: Archive
) -> None:
    """Those of one chunk and those of the next, before the save is ended, while it is, and after."""
    batches = [Batch(pack([marked(device) for device in DEVICES]))]
    assert append_batches(shard, batches, Limits()).resent == 0
    with pytest.raises(Stop):
        saver(archive, stop_at(step)).save(shard)
    assert append_batches(shard, batches, Limits()).resent == len(DEVICES)
    drain(shard, archive)
    assert append_batches(shard, batches, Limits()).resent == len(DEVICES)
    assert waiting(shard) == {}
    assert archive.open().to_pyarrow_table().num_rows == len(DEVICES)


def marked(device: str) -> Sent:
    return Sent(device, Record(NOW_US, "tcp", "gt06", 1.0, 2.0), is_stored_once=True)


@pytest.mark.parametrize("second", STEPS)
@pytest.mark.parametrize("first", ["intend", "write", "commit", "finish 0"])
def test_a_worker_that_ends_while_it_recovers(
    first: str, second: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, DEVICES[:30])
    for step in (first, second):
        with contextlib.suppress(Stop):
            saver(archive, stop_at(step)).save(shard)
        ledger.append(shard, DEVICES[20:40])
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_runs_on_after_another_took_over(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    """The zombie: stopped at a step for as long as a second worker needs for two saves, then running on."""
    stopped, go_on = threading.Event(), threading.Event()

    def reached(at: str) -> None:
        if at == step:
            stopped.set()
            assert go_on.wait(30)

    def zombie() -> None:
        try:
            saver(archive, reached).save(shard)
        except (IntentChanged, NotTogether) as error:
            refused.append(error)

    refused: list[Exception] = []
    ledger.append(shard, DEVICES)
    thread = threading.Thread(target=zombie)
    thread.start()
    assert stopped.wait(30)
    drain(shard, archive)
    ledger.append(shard, DEVICES[::3])
    drain(shard, archive)
    ledger.append(shard, DEVICES[::5])
    go_on.set()
    thread.join()
    assert not any(isinstance(error, NotTogether) for error in refused)
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    assert waiting(shard) == {}
    assert shard.unsaved() == 0


KILLED_WORKER = """
import os, signal, sys
from telemetry.hot_store import shard as hot
from telemetry.system import clock
from telemetry.archive.table import Archive
from telemetry.archive.schema import open_duckdb
from telemetry.config.loader import load
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.hot_store.client import connect
from worker.saving.saver import Saver

def reached(step):
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

settings = load()
[shard] = hot.attach(connect(settings), 1)
Saver(Archive(settings.archive_dir), open_duckdb(), clock.now_ms, reached=reached).save(shard)
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", ["intend", "still", "open", "commit", "finish", "finish 1"])
def test_a_worker_process_killed_at_a_step(
    step: str,
    shard: Shard,
    archive: Archive,
    ledger: Ledger,
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    ledger.append(shard, DEVICES)
    environ = os.environ | {
        "WHIMBREL__REDIS__URL": settings.redis.url,
        "WHIMBREL__DATA__DIR": str(settings.data_dir),
    }
    done = subprocess.run([sys.executable, "-c", KILLED_WORKER, step], env=environ, timeout=60)
    assert done.returncode == -signal.SIGKILL
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


def test_two_intents_never_share_a_number(shard: Shard) -> None:
    numbers = {Intent(number, []).head for number in ("4294967296", "4294967297")}
    assert len(numbers) == 2
    intent = Intent("4294967296", [Range("a", "1-1", "2-2", 3)])
    assert intent.encode().startswith(intent.head)


# Bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(max_records=7),
        Bounds(max_bytes=500),
        Bounds(max_devices=2),
        Bounds(max_days=2),
        Bounds(1, 1, 1, 1),
    ],
)
def test_a_large_tail_is_saved_in_bounded_pieces(
    bounds: Bounds, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    for _ in range(5):
        ledger.append(shard, ["a", "b", "c", "d", "e"], days=5)
    found = saver(archive, bounds=bounds)
    sizes = []
    while shard.unsaved():
        sizes.append(found.save(shard))
    assert len(sizes) > 1
    assert max(sizes) <= max(bounds.max_records, 1)
    assert archived(connection, archive) == ledger.acknowledged


def test_long_streams_are_read_in_pages(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    for _ in range(250):
        ledger.append(shard, ["a", "a"])
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


# What can't be saved ---------------------------------------------------------------------------------


def test_a_record_that_can_not_be_read_goes_to_quarantine_once(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, ["a", "b"])
    shard.client.xadd(shard.keys.stream("a"), {"i": "77", "r": b"\x91\xc1"})
    shard.client.incr(shard.keys.unsaved)
    for step in ("quarantine", "write", "finish"):
        with pytest.raises(Stop):
            saver(archive, stop_at(step)).save(shard)
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    [(_, kept)] = cast("list[RawEntry]", shard.client.xrange(shard.keys.quarantine))
    fields = dict(zip(kept[::2], kept[1::2], strict=True))
    assert fields[b"device"] == b"a"
    assert fields[b"i"] == b"77"
    assert fields[b"r"] == b"\x91\xc1"
    assert fields[b"reason"]


def test_quarantine_is_bounded_and_counts_what_it_drops(shard: Shard, archive: Archive) -> None:
    for number in range(5):
        shard.client.xadd(shard.keys.stream("a"), {"i": str(number + 1), "r": b"\xc1" * 100})
    shard.client.zadd(shard.keys.dirty, {"a": 1})
    Saver(archive, open_duckdb(), clock.now_ms, quarantine_max_bytes=250).save(shard)
    assert shard.client.xlen(shard.keys.quarantine) == 2
    assert shard.client.hget(shard.keys.quarantine_state, "dropped") == b"3"
    assert shard.client.hget(shard.keys.quarantine_state, "kept") == b"5"


def test_what_waits_is_counted_right_again_after_an_entry_of_many_that_can_not_be_read(
    shard: Shard, archive: Archive, ledger: Ledger
) -> None:
    ledger.append(shard, ["a"])
    shard.client.xadd(shard.keys.stream("a"), {"i": "77", "r": b"\xc1" * 100})
    shard.client.incrby(shard.keys.unsaved, 30)
    drain(shard, archive)
    assert shard.unsaved() == 0


# Redis and archive -----------------------------------------------------------------------------------


def test_an_emptied_redis_goes_on_where_the_archive_ends(
    shard: Shard, client: redis.Redis, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, ["a"] * 3)
    drain(shard, archive)
    greatest = archive.greatest_id(archive.open())
    client.flushall()
    [new] = set_up(client, archive, 1)
    assert new.state().committed == archive.committed(archive.open(), 0)
    ledger.append(new, ["a"])
    drain(new, archive)
    assert archived(connection, archive) == ledger.acknowledged
    assert archive.greatest_id(archive.open()) > greatest


def test_a_redis_restored_from_before_the_last_commit_stops_saving(
    own_redis: RedisServer, tmp_path: Path, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    archive = Archive(settings.archive_dir)
    with connect(settings) as client:
        [shard] = set_up(client, archive, 1)
        ledger.append(shard, ["a", "b"])
        own_redis.kill()
        shutil.copytree(own_redis.folder / "appendonlydir", tmp_path / "old")
        own_redis.start()
        drain(shard, archive)
        own_redis.kill()
        shutil.rmtree(own_redis.folder / "appendonlydir")
        shutil.copytree(tmp_path / "old", own_redis.folder / "appendonlydir")
        own_redis.start()
        version = archive.open().version()
        with pytest.raises(NotTogether, match="whimbrel recover"):
            saver(archive).save(shard)
        assert archive.open().version() == version
        assert archived(connection, archive) == ledger.acknowledged


def test_an_archive_restored_from_before_the_last_commit_stops_saving(
    shard: Shard, archive: Archive, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.append(shard, ["a"])
    drain(shard, archive)
    shutil.copytree(archive.root, tmp_path / "old")
    ledger.append(shard, ["b"])
    drain(shard, archive)
    shutil.rmtree(archive.root)
    (tmp_path / "old").rename(archive.root)
    ledger.append(shard, ["c"])
    with pytest.raises(NotTogether):
        saver(archive).save(shard)
    assert count_of(shard.state().committed) == 2
    assert waiting(shard).total() == 1
