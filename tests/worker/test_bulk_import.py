"""Imports: each batch in the archive once, whatever dies at whatever step, and whoever comes in between."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from cli.imports.batches import columns_of
from compactor.compaction import Sweep
from telemetry.archive.change_feed import change_at
from telemetry.archive.operations import import_progress, log_maintenance
from telemetry.archive.operations.import_progress import Progress
from telemetry.archive.schema import has_id_sql
from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import decode_intent, decode_latest, last_seen_ms, pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, IntentChanged, NotTogether, OtherStoreError
from telemetry.model.record import Record, Sent, Transport
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import apart, set_up
from telemetry.system import clock
from telemetry.system.failpoints import Step, no_step_reporter
from tests.conftest import RedisServer, settings_of
from tests.worker.conftest import NOW_US, Ledger, archived
from tests.worker.stopping import Stop, at, stop
from worker.bulk_import import Importer, MovedMeanwhile
from worker.recovery import recover
from worker.saving.latest_rebuild import rebuild
from worker.saving.saver import Saver

STEPS = ("allot", "write", "intend", "open", "commit", "offer", "finish")
NAME = "a-file-0"
HALF, WHOLE = Progress(2), Progress(4, is_whole=True)
DEVICES = ("a", "b", "a", "c")
EXPECTED = Counter((device, number) for number, device in enumerate(DEVICES))


def saver(archive: Archive, connection: duckdb.DuckDBPyConnection) -> Saver:
    return Saver(archive, connection, clock.now_ms)


def importer(
    archive: Archive,
    connection: duckdb.DuckDBPyConnection,
    reached: Step = no_step_reporter,
    max_devices: int = 100,
    usable_s: float = 60,
    name: str = NAME,
) -> Importer:
    found = saver(archive, connection)
    return Importer(name, archive, connection, found, clock.now_ms, max_devices, usable_s, reached)


def rows(*numbers: int, days: int = 2) -> pa.Table:
    """Records that are all different, as columns; the greatest number is the newest."""
    sent = [
        Sent(DEVICES[n], Record(NOW_US - (n < 2) * days * DAY_US + n, "import", "csv", altitude_m=float(n)))
        for n in numbers
    ]
    return pa.Table.from_batches([columns_of(sent)])


def bring(found: Importer, shard: Shard) -> None:
    """The whole import, in two batches, as a command does it: from where the table says that it is."""
    for before, after, numbers in ((Progress(), HALF, (0, 1)), (HALF, WHOLE, (2, 3))):
        if found.progress(shard) == before:
            found.bring(shard, rows(*numbers), before, after)


def latest(shard: Shard, device: str) -> float | None:
    [found] = shard.latest([device.encode()])
    newest = decode_latest(found).newest if found is not None else None
    return None if newest is None else newest.stored(device).record.altitude_m


def assert_whole(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    assert archived(connection, archive) == EXPECTED
    assert [latest(shard, device) for device in "abc"] == [2, 1, 3]
    assert apart(shard, archive) is None
    assert shard.state().intent is None
    ids = [
        row[0]
        for row in connection.execute(
            "SELECT id FROM read_parquet($1) ORDER BY altitude_m", [archive.files(archive.open())]
        ).fetchall()
    ]
    assert ids == sorted(set(ids)), "ids rise with arrival, and none is there twice"


def test_records_are_in_the_archive_and_latest_knows_them(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    bring(importer(archive, connection), shard)
    assert_whole(shard, archive, connection)
    assert importer(archive, connection).progress(shard) == WHOLE
    [found] = shard.latest([b"c"])
    assert last_seen_ms(found or b"") == NOW_US // 1_000, "a device was not heard just because its past came in"
    [is_late] = connection.execute(
        "SELECT bool_and(received_at > now() - INTERVAL 1 minute) FROM read_parquet($1)",
        [archive.files(archive.open())],
    ).fetchall()
    assert is_late == (True,)


@pytest.mark.parametrize("transport", ["import", "tcp"])
@pytest.mark.parametrize("batches", [1, 2])
def test_a_device_was_seen_when_its_imported_records_were_measured_also_for_a_new_redis(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, transport: Transport, batches: int
) -> None:
    """Also where the file says by which transport they came, and not if they came from the device itself."""
    year_us, devices = 365 * DAY_US, ("a", "b")
    for number, device in enumerate(devices[:batches]):
        sent = [Sent(device, Record(NOW_US - years * year_us, transport, "csv")) for years in (1, 2)]
        before, after = Progress(2 * number), Progress(2 * number + 2)
        importer(archive, connection).bring(shard, pa.Table.from_batches([columns_of(sent)]), before, after)
    sent_at_ms = clock.now_ms()
    append_batches(shard, [Batch(pack([Sent("live", Record(NOW_US - year_us, "tcp", "json"))]))], Limits())
    saver(archive, connection).save(shard)
    shard.client.flushall()
    [new] = set_up(shard.client, archive, 1)
    rebuild(new, archive, connection)
    *imported, live = (last_seen_ms(found or b"") for found in new.latest([b"a", b"b", b"live"]))
    assert imported[:batches] == [(NOW_US - year_us) // 1_000] * batches
    assert live >= sent_at_ms


def test_ids_of_imports_with_other_transports_are_noted_in_few_ranges(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    known = list[range]()
    for number, (transport, sends) in enumerate([("tcp", 0), ("http", 0), ("import", 0), ("tcp", 1), ("tcp", 0)]):
        append_batches(shard, [Batch(pack([Sent("live", Record(NOW_US, "tcp", "json"))]))] * sends, Limits())
        sent = [Sent("a", Record(NOW_US, kind, "csv")) for kind in (transport, "import")]
        batch = pa.Table.from_batches([columns_of(sent)])
        importer(archive, connection).bring(shard, batch, Progress(number), Progress(number + 1))
        known = import_progress.imported_otherwise(archive.open(), 0, 1, known)
        assert known == import_progress.imported_otherwise(archive.open(), 0, 1)
    first, second = known
    assert (len(first), len(second)) == (4, 4), (
        "the third batch has no other transport; a record came before the fourth"
    )
    [(found,)] = connection.execute(
        f"SELECT count(*) FROM read_parquet($1) WHERE {' OR '.join(map(has_id_sql, known))}",
        [archive.files(archive.open())],
    ).fetchall()
    assert found == 8
    assert import_progress.imported_otherwise(archive.open(), 1, 2) == []


@pytest.mark.parametrize("is_saved", [True, False], ids=["a worker comes", "no worker comes"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_one_that_died_at_a_step_goes_on(
    shard: Shard,
    archive: Archive,
    connection: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    times: int,
    is_saved: bool,
) -> None:
    monkeypatch.setattr("worker.bulk_import.LEFT_S", 0.0)
    with pytest.raises(Stop):
        bring(importer(archive, connection, at(step, stop, times)), shard)
    if is_saved:
        saver(archive, connection).save(shard)
    importer(archive, connection).settle(shard)
    bring(importer(archive, connection), shard)
    assert_whole(shard, archive, connection)


def test_a_worker_may_be_faster_where_an_import_finds_what_it_left(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    with pytest.raises(Stop):
        bring(importer(archive, connection, at("offer", stop, 2)), shard)
    faster = at("finish", lambda: saver(archive, connection).save(shard), 1)
    slow = Saver(archive, connection, clock.now_ms, reached=faster)
    Importer(NAME, archive, connection, slow, clock.now_ms, 100, 60).settle(shard)
    assert_whole(shard, archive, connection)


@pytest.mark.parametrize("step", STEPS)
def test_what_was_committed_is_whole_without_the_import(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, step: str
) -> None:
    """Whoever saves next tells latest of it."""
    with pytest.raises(Stop):
        bring(importer(archive, connection, at(step, stop, 2)), shard)
    saver(archive, connection).save(shard)
    is_there = archived(connection, archive) == EXPECTED
    assert is_there == (step in ("offer", "finish"))
    assert latest(shard, "c") == (3 if is_there else None)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_saves_at_a_step(
    shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection, step: str, times: int
) -> None:
    """It takes the intent for one whose import died."""

    def save() -> None:
        ledger.append(shard, ["worker"])
        saver(archive, connection).save(shard)
        saver(archive, connection).save(shard)

    bring(importer(archive, connection, at(step, save, times)), shard)
    saver(archive, connection).save(shard)
    assert archived(connection, archive) == EXPECTED + ledger.acknowledged
    assert [latest(shard, device) for device in "abc"] == [2, 1, 3]
    assert shard.state().intent is None


@pytest.mark.parametrize("step", STEPS)
def test_two_of_the_same_name_bring_no_row_twice(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("worker.bulk_import.LEFT_S", 0.0)
    with contextlib.suppress(MovedMeanwhile):
        bring(importer(archive, connection, at(step, lambda: bring(importer(archive, connection), shard))), shard)
    assert_whole(shard, archive, connection)


def test_of_two_names_both_come_in(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    other = importer(archive, connection, name="another-0")
    bring(importer(archive, connection, at("intend", lambda: bring(other, shard))), shard)
    assert archived(connection, archive) == EXPECTED + EXPECTED


def test_forwards_see_new_records(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    bring(importer(archive, connection), shard)
    log = archive.root / "_delta_log"
    changes = [change_at(log, version) for version in range(1, archive.open().version() + 1)]
    assert [change.rows for change in changes if change is not None] == [2, 2]
    log_maintenance.mend(archive)
    assert archive.open().version() == 2, "its entries are whole"


def test_progress_without_records(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    found = importer(archive, connection)
    found.bring(shard, rows(0, 1), Progress(), HALF)
    found.bring(shard, rows(0, 1).slice(0, 0), HALF, WHOLE)
    assert found.progress(shard) == WHOLE
    assert apart(shard, archive) is None


def test_devices_are_bounded(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    found = importer(archive, connection, max_devices=2)
    found.bring(shard, rows(0, 1), Progress(), HALF)
    with pytest.raises(BusyError, match=r"max_devices"):
        found.bring(shard, rows(2, 3), HALF, WHOLE)
    assert found.progress(shard) == HALF


def test_files_that_became_too_old_are_written_anew(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    """The sweep may delete them as soon as no intent protects them."""
    found = importer(archive, connection, at("allot", lambda: setattr(found, "_usable_s", 60), times=2), usable_s=0)
    bring(found, shard)
    assert_whole(shard, archive, connection)
    assert len(archive.unlisted(archive.open())) == 1


def test_the_sweep_spares_what_an_intent_protects(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    now_s = [0.0]

    def under_way() -> list[str]:
        intent = shard.state().intent
        return [decode_intent(intent).commit] if intent else []

    sweep = Sweep(archive, under_way, lambda: now_s[0], 3_600)

    def swept() -> None:
        assert sweep.sweep() == []
        now_s[0] += 3_600
        assert sweep.sweep() == []

    bring(importer(archive, connection, at("commit", swept)), shard)
    assert_whole(shard, archive, connection)


@pytest.mark.parametrize("step", ["write", "intend", "open", "commit", "finish"])
def test_redis_is_restored_from_before_the_batch_at_a_step(
    own_redis: RedisServer, tmp_path: Path, connection: duckdb.DuckDBPyConnection, step: str
) -> None:
    """Ids that it gives a second time are in the archive once: the batch gets others, or a recovery is due."""
    settings = settings_of(own_redis.url, tmp_path)
    archive = Archive(settings.archive_dir)
    with connect(settings) as client:
        shard = set_up(client, archive, 1)[0]
        importer(archive, connection).bring(shard, rows(0, 1), Progress(), HALF)
        ledger = Ledger()

        def restore() -> None:
            own_redis.kill()
            shutil.rmtree(own_redis.folder / "appendonlydir")
            shutil.copytree(tmp_path / "copy", own_redis.folder / "appendonlydir")
            own_redis.start()
            ledger.append(shard, ["sender"] * 2)

        own_redis.kill()
        shutil.copytree(own_redis.folder / "appendonlydir", tmp_path / "copy")
        own_redis.start()
        with contextlib.suppress(NotTogether, IntentChanged):
            importer(archive, connection, at(step, restore)).bring(shard, rows(2, 3), HALF, WHOLE)
        if apart(shard, archive) is not None:
            recover(shard, archive, connection, clock.now_ms())
        shard = hot.attach(client, 1)[0]
        bring(importer(archive, connection), shard)
        saver(archive, connection).save(shard)
        assert archived(connection, archive) == EXPECTED + ledger.acknowledged
        [(ids, different)] = connection.execute(
            "SELECT count(id), count(DISTINCT id) FROM read_parquet($1)", [archive.files(archive.open())]
        ).fetchall()
        assert ids == different == 6


def test_an_emptied_redis_is_refused(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(OtherStoreError):
        bring(importer(archive, connection, at("intend", lambda: shard.client.flushall())), shard)
    assert archived(connection, archive) == Counter()
