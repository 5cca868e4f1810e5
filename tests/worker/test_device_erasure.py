"""Deleting a device: what was accepted before goes, wherever it is by then; what comes later stays, and all else."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from deltalake import DeltaTable

from cli.imports.batches import columns_of
from compactor.compaction import Compactor, Sweep
from compactor.plan import Limits as CompactLimits
from telemetry.archive.change_feed import change_at
from telemetry.archive.operations import commits, log_maintenance
from telemetry.archive.operations.erasures import DELETION
from telemetry.archive.operations.import_progress import Progress
from telemetry.archive.schema import COLUMNS, open_duckdb, sql_text
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import Archived, Aside, Entry, decode_latest, entry_id, pack
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.append import Batch, Limits, append_batches, limit_usage
from telemetry.hot_store.operations.latest_rebuild import must_rebuild, offer_archived
from telemetry.hot_store.operations.quarantine import quarantine_rejected, read_quarantine, replay
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import IntentChanged, PlanOutdated
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from telemetry.system.failpoints import Step, no_step_reporter
from tests.conftest import RedisServer, settings_of
from tests.worker.conftest import NOW_US, Content, Ledger, archived, waiting
from tests.worker.stopping import Stop, at, stop
from worker.bulk_import import Importer
from worker.device_erasure import BUSY_S, Eraser
from worker.saving.latest_rebuild import rebuild
from worker.saving.saver import Saver

GONE = "gone/ü%2F '\"\n\t☂"
"""A device's id may hold any text."""

STEPS = ("settle", "cleanse", "look", "write", "sync", "commit", "make last", "count", "complete")
SAVE_STEPS = ("look", "intend", "read", "still", "write", "open", "commit", "make last", "finish", "finish 0", "done")


def saver(archive: Archive, reached: Step = no_step_reporter) -> Saver:
    told = Archive(archive.root, reached)
    return Saver(told, open_duckdb(), clock.now_ms, reached=reached)


def eraser(archive: Archive, reached: Step = no_step_reporter, monotonic: Callable[[], float] = lambda: 0.0) -> Eraser:
    connection = open_duckdb()
    return Eraser(Archive(archive.root, reached), lambda: connection, saver(archive), clock.now_ms, reached, monotonic)


def finish(shard: Shard, archive: Archive) -> None:
    """What is pending is done, as a worker that is asked again and again does it."""
    found = eraser(archive)
    for _ in range(20):
        found.erase(shard)
        if not deletions.pending(shard):
            return
    raise AssertionError(deletions.read(shard, deletions.pending(shard)[0].name))


def drain(shard: Shard, archive: Archive) -> None:
    found = saver(archive)
    while shard.unsaved() or shard.state().intent:
        found.save(shard)


def ask(shard: Shard, ledger: Ledger, device: str = GONE) -> str:
    """Delete a device: what was acknowledged of it is expected nowhere any more."""
    name = deletions.ask(shard, device)
    assert name is not None
    for content in [one for one in ledger.acknowledged if one[0] == device]:
        del ledger.acknowledged[content]
    return name


def read(shard: Shard, name: str) -> deletions.Deletion:
    found = deletions.read(shard, name)
    assert found is not None
    return found


def latest(shard: Shard, device: str) -> float | None:
    [found] = shard.latest([device.encode()])
    newest = decode_latest(found).newest if found is not None else None
    return None if newest is None else newest.stored(device).record.altitude_m


def everywhere(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Counter[Content]:
    return archived(connection, archive) + waiting(shard)


def fill(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    """Three saves over three days, and a tail."""
    for _ in range(3):
        ledger.append(shard, ["a", GONE, "z", GONE], days=3)
        saver(archive).save(shard)
    ledger.append(shard, ["b", GONE], days=3)


def test_a_device_goes_and_nothing_else_does(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    for _ in range(2):
        ledger.append(shard, ["b", "c"])
        saver(archive).save(shard)
    ledger.append(shard, ["b", GONE, GONE])
    files = archive.live(archive.open())
    kept = {
        file.path for file in files if not archive.data_files.count(connection, file, f"device_id = {sql_text(GONE)}")
    }
    assert 0 < len(kept) < len(files)
    name = ask(shard, ledger)
    assert latest(shard, GONE) is None
    assert GONE not in {device for device, _ in waiting(shard)}, "it goes from Redis at once"
    assert shard.unsaved() == 1
    assert read(shard, name).state == deletions.QUEUED
    ledger.append(shard, [GONE])
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged
    assert kept <= set(archive.files(archive.open())), "no other file is touched"
    assert latest(shard, GONE) == max(number for device, number in ledger.acknowledged if device == GONE)
    found = read(shard, name)
    assert (found.state, found.waiting_records, found.archived_records) == (deletions.DONE, 2, 7)
    assert found.files == len(files) - len(kept)
    assert len(found.days) == 3
    assert found.left, "old files lie there until the sweep"
    assert shard.unsaved() == 2
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    for file in archive.files(archive.open()):
        rows = pq.ParquetFile(file).read(["device_id", "timestamp", "id"]).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["device_id"], row["timestamp"], row["id"]))


def test_a_device_that_never_was_can_not_be_deleted(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    assert deletions.ask(shard, "nobody") is None
    ledger.append(shard, [GONE])
    first = ask(shard, ledger)
    assert deletions.ask(shard, GONE) == first, "while it is under way it is the same"
    finish(shard, archive)
    assert deletions.ask(shard, GONE) is None, "nothing knows it any more"
    assert deletions.read(shard, "0-" + "0" * 32) is None


def test_redis_holds_nothing_of_it_afterwards(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    fill(shard, archive, ledger)
    ask(shard, ledger)
    finish(shard, archive)
    for key in shard.client.scan_iter():
        assert GONE.encode() not in key
        assert GONE.encode() not in (shard.client.dump(key) or b"")


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_ends_at_any_step_is_resumed(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    before = Counter(device for device, _ in ledger.acknowledged)[GONE]
    name = ask(shard, ledger)
    for times in (1, 2):
        try:
            eraser(archive, at(step, stop, times)).erase(shard)
        except Stop:
            ledger.append(shard, [GONE, "a"])
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    found = read(shard, name)
    assert found.waiting_records + found.archived_records == before, "each is counted once"
    assert shard.unsaved() == 0


@pytest.mark.parametrize("step", SAVE_STEPS)
def test_whatever_a_save_is_about_to_do(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    """The device is deleted, all of it, while a save is at a step; then the save runs on."""
    fill(shard, archive, ledger)

    def delete() -> None:
        ask(shard, ledger)
        eraser(archive).erase(shard)
        ledger.append(shard, [GONE])

    with contextlib.suppress(IntentChanged):
        saver(archive, at(step, delete)).save(shard)
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    assert shard.unsaved() == 0


@pytest.mark.parametrize("step", SAVE_STEPS)
def test_a_save_that_died_at_a_step_before(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    try:
        saver(archive, at(step, stop)).save(shard)
    except Stop:
        ask(shard, ledger)
        ledger.append(shard, [GONE, "a"])
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


@pytest.mark.parametrize("step", ["allot", "write", "intend", "open", "commit", "offer", "finish"])
def test_whatever_an_import_is_about_to_do(
    step: str, shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    """What it had written goes, or it is brought anew and stays: never a part, and latest agrees with it."""
    sent = [Sent(device, Record(NOW_US + n, "import", "csv", altitude_m=float(n))) for n, device in enumerate("xgx")]
    records = pa.Table.from_batches([columns_of(sent)])
    done = list[str | None]()

    def delete() -> None:
        done.append(deletions.ask(shard, "g"))
        eraser(archive).erase(shard)

    append_batches(shard, [Batch(pack([Sent("g", Record(NOW_US - 1, "tcp", "json", altitude_m=9.0))]))], Limits())
    found = Importer("n", archive, connection, saver(archive), clock.now_ms, 100, 60, at(step, delete))
    found.bring(shard, records, Progress(), Progress(3, is_whole=True))
    assert done[0] is not None
    finish(shard, archive)
    assert not must_rebuild(shard)
    assert (latest(shard, "x")) == 2.0
    everything = everywhere(shard, archive, connection)
    assert everything - Counter({("g", 1): 1}) == Counter({("x", 0): 1, ("x", 2): 1})
    is_there = step not in ("offer", "finish")  # what was committed was accepted before; all else is brought anew
    assert everything[("g", 1)] == is_there
    assert latest(shard, "g") == (1.0 if is_there else None)


@pytest.mark.parametrize("step", ["plan", "merge", "sync", "commit", "make last", "done"])
def test_whatever_a_merge_is_about_to_do(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    ledger.append(shard, ["a"], days=3)

    def delete() -> None:
        ask(shard, ledger)
        eraser(archive).erase(shard)

    told = at(step, delete)
    merging = Compactor(
        Archive(archive.root, told), lambda: connection, lambda: NOW_US, CompactLimits(), told, is_all=True
    )
    with contextlib.suppress(PlanOutdated):
        merging.compact()
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged


@pytest.mark.parametrize("step", ["write", "commit"])
def test_a_merge_in_between_has_it_look_again(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    ask(shard, ledger)
    merging = Compactor(archive, lambda: connection, lambda: NOW_US, CompactLimits(), is_all=True)
    eraser(archive, at(step, merging.compact)).erase(shard)
    assert deletions.pending(shard), "that commit was refused"
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged


def test_asked_again_meanwhile_its_moment_moves_on(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    name = ask(shard, ledger)

    def again() -> None:
        ledger.append(shard, [GONE])
        saver(archive).save(shard)
        assert ask(shard, ledger) == name
        ledger.append(shard, [GONE])

    eraser(archive, at("complete", again)).erase(shard)
    assert deletions.pending(shard)
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged
    assert Counter(device for device, _ in ledger.acknowledged)[GONE] == 1


@pytest.mark.parametrize("moment", ["before", "within", "behind"])
def test_latest_is_not_found_again_in_old_files(
    moment: str, shard: Shard, archive: Archive, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for latest in the archive reads files that still hold the device."""
    fill(shard, archive, ledger)
    drain(shard, archive)
    ask(shard, ledger)
    if moment != "before":
        done: list[bool] = []

        def late(shard: Shard, found: list[Archived], deleted: int) -> None:
            if not done:
                done.append(True)
                finish(shard, archive)
            offer_archived(shard, found, deleted)

        monkeypatch.setattr("worker.saving.latest_rebuild.offer_archived", late)
    rebuild(shard, archive, open_duckdb())
    if moment == "before":
        assert deletions.pending(shard)
        assert latest(shard, GONE) is None
        finish(shard, archive)
    assert latest(shard, GONE) is None
    assert latest(shard, "a") is not None


def test_what_is_in_quarantine_goes_too(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    ledger.append(shard, [GONE, "a"])
    append_batches(shard, [Batch([Entry(GONE, 1, b"\x91\xc1", b"")])], Limits())
    quarantine_rejected(shard, [Aside(GONE, "bad", b"1"), Aside("a", "bad", b"22"), Aside(GONE, "bad", b"3")], 2**20)
    drain(shard, archive)
    before = list(read_quarantine(shard))
    assert [one.device_id for one in before] == [GONE, "a", GONE, GONE]
    name = ask(shard, ledger)
    assert not replay(shard, before[-1], pack([Sent(GONE, Record(NOW_US, "tcp", "json"))])[0]), (
        "it is too late for that"
    )
    quarantine_rejected(shard, [Aside(GONE, "bad", b"later")], 2**20)
    finish(shard, archive)
    assert [(one.device_id, one.raw) for one in read_quarantine(shard)] == [("a", b"22"), (GONE, b"later")]
    assert read(shard, name).quarantined == 3
    assert limit_usage(shard).quarantine_bytes == len(b"22") + len(b"later")
    quarantine_rejected(shard, [Aside("b", "bad", b"x")], 2**20)
    assert [one.device_id for one in read_quarantine(shard)] == ["a", GONE, "b"]


def test_a_quarantine_that_held_nothing_else(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    ledger.append(shard, [GONE])
    quarantine_rejected(shard, [Aside(GONE, "bad", b"1")], 2**20)
    [before] = read_quarantine(shard)
    ask(shard, ledger)
    finish(shard, archive)
    assert list(read_quarantine(shard)) == []
    quarantine_rejected(shard, [Aside("b", "bad", b"x")], 2**20)
    [after] = read_quarantine(shard)
    assert entry_id(after.name) > entry_id(before.name)


def test_redis_writes_its_own_file_anew(own_redis: RedisServer, tmp_path: Path, ledger: Ledger) -> None:
    client, archive = connect(settings_of(own_redis.url, tmp_path)), Archive(tmp_path / "archive")
    [shard] = set_up(client, archive, 1)
    fill(shard, archive, ledger)
    assert not deletions.rewrite_log([shard])
    ask(shard, ledger)
    finish(shard, archive)

    def holds_it() -> bool:
        return any(GONE.encode() in path.read_bytes() for path in own_redis.folder.rglob("*.aof"))

    assert holds_it()
    assert deletions.rewrite_log([shard])
    end_s = time.monotonic() + 30
    while holds_it() and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not holds_it()
    assert not deletions.rewrite_log([shard]), "once is enough"
    assert waiting(shard).total() == 1
    client.close()


def test_entry_ids_of_a_stream_that_was_deleted_never_come_again(shard: Shard, ledger: Ledger) -> None:
    """An intent may still name them, and the box's clock may have been set back."""
    ahead = clock.now_ms() + 86_400_000
    ledger.append(shard, [GONE])
    [[(_, [_, first_id, _, records])]] = shard.entries([(GONE, "-", "+")])
    shard.client.xadd(shard.keys.stream(GONE), {"i": first_id, "r": records}, id=f"{ahead}-7")
    ask(shard, ledger)
    ledger.append(shard, [GONE])
    ledger.append(shard, [GONE, "other"])
    [found, other] = shard.entries([(GONE, "-", "+"), ("other", "-", "+")])
    assert [raw[0] for raw in found] == [b"%d-0" % (ahead + 1), b"%d-1" % (ahead + 1)]
    assert entry_id(other[0][0])[0] == ahead + 1, "as it could be one that was deleted"


def test_old_versions_are_readable_until_the_sweep_and_then_no_file_holds_it(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    drain(shard, archive)
    version = archive.open().version()
    before = archived(connection, archive)
    reader = archive.files(archive.open())
    name = ask(shard, ledger)
    finish(shard, archive)
    travelled = DeltaTable(str(archive.root), version=version).to_pyarrow_table(columns=["device_id"])
    assert travelled.num_rows == before.total()
    [(rows,)] = connection.execute("SELECT count(*) FROM read_parquet($1)", [reader]).fetchall()
    assert rows == before.total(), "a query that had begun goes on"
    now_s = 0.0
    sweep = Sweep(archive, list, lambda: now_s, grace_s=60)
    sweep.sweep()
    now_s = 61.0
    gone = sweep.sweep()
    assert {str(archive.root / path) for path in read(shard, name).left} == set(gone)
    for path in archive.root.rglob("*.parquet"):
        assert GONE.encode() not in path.read_bytes()
        if path.parent.name.startswith("date="):
            assert GONE not in pq.ParquetFile(path).read(["device_id"]).column(0).to_pylist()


def test_the_commit_says_why_and_not_whose(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    fill(shard, archive, ledger)
    name = ask(shard, ledger)
    finish(shard, archive)
    told = [entry for entry in archive.open().history() if entry.get(DELETION) == name]
    assert sum(int(entry["whimbrel.deleted_records"]) for entry in told) == 6
    assert GONE not in str(told)
    changes = [change_at(archive.root / "_delta_log", entry["version"]) for entry in told]
    assert [change and change.rows for change in changes] == [0] * len(told), "a forward takes nothing of it for new"
    old = time.time() - 3 * 86_400
    log = archive.root / "_delta_log"
    for path in log.iterdir():
        os.utime(path, (old, old))
    ledger.append(shard, ["a"])
    saver(archive).save(shard)
    assert log_maintenance.forget_past(archive, time.time())
    left = sorted(path.name for path in log.iterdir())
    assert not any(GONE.encode() in path.read_bytes() for path in log.glob("*.json"))
    assert not log_maintenance.forget_past(archive, time.time()), left
    for path in log.glob("*.checkpoint.parquet"):
        assert GONE not in str(pq.read_table(path).to_pylist())
    assert archived(connection, archive) == ledger.acknowledged


def test_it_works_for_some_seconds_at_a_time(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    for _ in range(4):
        ledger.append(shard, ["a", GONE] * 3, days=6)
        saver(archive).save(shard)
    name = ask(shard, ledger)
    now_s = 0.0

    def monotonic() -> float:
        nonlocal now_s
        now_s += BUSY_S
        return now_s

    found, to_look_at = eraser(archive, monotonic=monotonic), list[int]()
    while deletions.pending(shard):
        found.erase(shard)
        to_look_at.append(read(shard, name).to_look_at or 0)
    assert len(to_look_at) > 2
    assert to_look_at == sorted(to_look_at, reverse=True)
    assert read(shard, name).archived_records == 12


def test_two_workers_at_once_do_no_harm(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    for _ in range(3):
        fill(shard, archive, ledger)
    drain(shard, archive)
    before = Counter(device for device, _ in ledger.acknowledged)[GONE]
    name = ask(shard, ledger)
    threads = [threading.Thread(target=finish, args=(shard, archive)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish(shard, archive)
    assert everywhere(shard, archive, connection) == ledger.acknowledged
    assert read(shard, name).archived_records == before


def test_a_failure_is_told_and_tried_again(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    fill(shard, archive, ledger)
    name = ask(shard, ledger)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    eraser(archive, at("sync", fail)).erase(shard)
    found = read(shard, name)
    assert found.state == deletions.FAILED
    assert "No space left" in found.trouble
    finish(shard, archive)
    found = read(shard, name)
    assert (found.state, found.trouble) == (deletions.DONE, "")


def test_shards_delete_each_their_own(client: redis.Redis, archive: Archive, ledger: Ledger) -> None:
    shards = set_up(client, archive, 3)
    mine = {number: [d for d in map(str, range(30)) if shard_of(d, 3) == number][:2] for number in range(3)}
    for shard in shards:
        ledger.append(shard, mine[shard.shard] * 3)
        saver(archive).save(shard)
    names = [ask(shard, ledger, mine[shard.shard][0]) for shard in shards]
    for shard in shards:
        ledger.append(shard, mine[shard.shard])
    assert [deletions.shard_named(name) for name in names] == [0, 1, 2]
    for shard in shards:
        finish(shard, archive)
    found = archived(open_duckdb(), archive)
    for shard in shards:
        found += waiting(shard)
    assert found == ledger.acknowledged


@pytest.mark.slow
def test_a_million_records_of_it_in_bounded_memory(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    """Half a million each of two devices in one file of a day, and texts that are no use to compress; memory for a
    few row groups."""
    rows, days = 500_000, 2
    for day in range(days):
        batch = connection.sql(
            "SELECT (CASE WHEN n % 2 = 0 THEN 'big' ELSE 'other' END) AS device_id, "
            f"make_timestamptz({NOW_US - day * DAY_US} + n) AS timestamp, make_timestamptz({NOW_US}) AS received_at, "
            f"n + 1 + {day * 2 * rows} AS id, 'tcp' AS transport, 'json' AS source, random() AS latitude, "
            "random() AS longitude, NULL::DOUBLE AS altitude_m, random() AS speed_kmh, NULL::DOUBLE AS heading_deg, "
            "NULL::DOUBLE AS accuracy_m, NULL::VARCHAR AS location, md5(n::VARCHAR) AS attributes "
            f"FROM range({2 * rows}) r(n) ORDER BY 1, 2, 4"
        ).to_arrow_table()
        table = archive.open()
        commit = commit_number(archive.committed(table, 0))
        commits.commit(
            archive, table, archive.data_files.write(batch.cast(COLUMNS), commit), 0, commit, NOW_US // 1_000
        )
        shard.client.set(shard.keys.committed, commit)
    shard.client.set(shard.keys.next_id, 2 * days * rows + 1)
    append_batches(shard, [Batch(pack([Sent("big", Record(NOW_US, "tcp", "json"))]))], Limits())
    name = deletions.ask(shard, "big")
    assert name is not None
    small = open_duckdb(memory_limit="96MiB")
    found = Eraser(archive, lambda: small, saver(archive), clock.now_ms, monotonic=lambda: 0.0)
    assert found.erase(shard) == 1
    assert read(shard, name).archived_records == days * rows
    [(limit,)] = small.execute("SELECT current_setting('memory_limit')").fetchall()
    assert limit == "96.0 MiB"
    counts = connection.execute(
        "SELECT device_id, count(*), count(DISTINCT id) FROM read_parquet($1) GROUP BY ALL",
        [archive.files(archive.open())],
    ).fetchall()
    assert counts == [("other", days * rows, days * rows)]
