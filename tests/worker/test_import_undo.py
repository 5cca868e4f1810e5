"""Undo of an import: exactly its records go, whatever dies at whatever step, and whoever comes in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import duckdb
import pyarrow as pa
import pytest

from cli.imports.batches import columns_of
from compactor.compaction import Compactor
from compactor.plan import Limits as CompactLimits
from telemetry.archive.operations import import_progress, log_maintenance
from telemetry.archive.operations.import_progress import Progress
from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import decode_latest, pack
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import StoreError
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import apart
from telemetry.system import clock
from telemetry.system.failpoints import Step, no_step_reporter
from tests.worker.conftest import NOW_US, archived, waiting
from tests.worker.stopping import Stop, at, stop
from worker.bulk_import import Importer, MovedMeanwhile
from worker.import_undo import Undoer
from worker.saving.latest_rebuild import rebuild
from worker.saving.saver import Saver

STEPS = ("fence", "settle", "look", "write", "commit", "note", "latest", "end")
NAME, OTHER = "a-file-0", "another-file-0"
FIRST, WHOLE = Progress(3), Progress(6, is_whole=True)

SAVED = {("a", 100), ("b", 101), ("c", 102)}
UNSAVED = {("b", 103)}
OTHERS = {("a", 110), ("d", 111)}
KEPT = Counter({*SAVED, *UNSAVED, *OTHERS})
LATEST = {"a": 110, "b": 103, "c": 102, "d": 111, "e": None}
IMPORTED = (("a", 0), ("b", 1), ("e", 2), ("a", 3), ("c", 4), ("e", 5))


def saver(archive: Archive, connection: duckdb.DuckDBPyConnection) -> Saver:
    return Saver(archive, connection, clock.now_ms)


def importer(
    archive: Archive, connection: duckdb.DuckDBPyConnection, reached: Step = no_step_reporter, name: str = NAME
) -> Importer:
    return Importer(name, archive, connection, saver(archive, connection), clock.now_ms, 100, 60, reached)


def undoer(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, reached: Step = no_step_reporter
) -> Undoer:
    return Undoer(archive, [shard], connection, saver(archive, connection), clock.now_ms, reached)


def record(number: int, at_us: int, transport: str = "import") -> Record:
    return Record(at_us, transport, "csv", latitude=1.0, longitude=2.0, altitude_m=float(number))


def rows(*devices: tuple[str, int], at_us: int = NOW_US) -> pa.Table:
    """Records of two days, those of the import newer than any other."""
    sent = [Sent(device, record(n, at_us - n % 2 * DAY_US + n)) for device, n in devices]
    return pa.Table.from_batches([columns_of(sent)])


def send(shard: Shard, devices: set[tuple[str, int]]) -> None:
    sent = [Sent(device, record(n, NOW_US - 3 * DAY_US + n, "http")) for device, n in sorted(devices)]
    append_batches(shard, [Batch(pack(sent))], Limits())


def bring(found: Importer, shard: Shard) -> None:
    for before, after, devices in ((Progress(), FIRST, IMPORTED[:3]), (FIRST, WHOLE, IMPORTED[3:])):
        if found.progress(shard) == before:
            found.bring(shard, rows(*devices), before, after)


def begin(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    """What is there besides: saved and unsaved records of devices, and another import."""
    send(shard, SAVED)
    saver(archive, connection).save(shard)
    other = rows(*sorted(OTHERS), at_us=NOW_US - 2 * DAY_US)
    importer(archive, connection, name=OTHER).bring(shard, other, Progress(), Progress(2, is_whole=True))


def latest(shard: Shard) -> dict[str, int | None]:
    found = {}
    for device, value in zip(LATEST, shard.latest([device.encode() for device in LATEST]), strict=True):
        parts = decode_latest(value) if value is not None else None
        if parts is not None:
            assert parts.newest == parts.position, device
        newest = parts.newest if parts is not None else None
        found[device] = None if newest is None else int(newest.stored(device).record.altitude_m or 0)
    return found


def assert_undone(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    assert archived(connection, archive) + waiting(shard) == KEPT
    assert latest(shard) == LATEST
    assert shard.devices() == 4, "a device that was brought by the import alone went"
    assert apart(shard, archive) is None
    assert shard.state().intent is None
    saver(archive, connection).save(shard)
    assert archived(connection, archive) == KEPT
    rebuild(shard, archive, connection)
    assert latest(shard) == LATEST, "and whoever finds it again in the archive finds the same"


def test_its_records_go_and_no_others(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    begin(shard, archive, connection)
    bring(importer(archive, connection), shard)
    send(shard, UNSAVED)
    assert latest(shard) == {"a": 0, "b": 103, "c": 4, "d": 111, "e": 2} | {"b": 1}
    done = undoer(shard, archive, connection).undo(NAME)
    assert (done.records, done.devices) == (6, 4)
    assert_undone(shard, archive, connection)
    assert undoer(shard, archive, connection).undo(NAME)[:3] == (0, 0, 0)
    found = import_progress.progress(archive.open(), NAME, 0)
    assert found is not None
    assert (found.is_undone, found.is_whole) == (True, True)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_one_that_died_at_a_step_goes_on(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, step: str, times: int
) -> None:
    begin(shard, archive, connection)
    bring(importer(archive, connection), shard)
    send(shard, UNSAVED)
    try:
        undoer(shard, archive, connection, at(step, stop, times)).undo(NAME)
    except Stop:
        pass
    else:
        assert times == 2, "each step is taken"
        assert step not in ("look", "write", "commit"), "two days are two commits"
    undoer(shard, archive, connection).undo(NAME)
    assert_undone(shard, archive, connection)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("step", ["allot", "write", "intend", "open", "commit", "offer", "finish"])
def test_an_import_that_died_at_a_step_is_taken_back(
    shard: Shard,
    archive: Archive,
    connection: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    times: int,
) -> None:
    monkeypatch.setattr("worker.import_undo.LEFT_S", 0.0)
    begin(shard, archive, connection)
    with pytest.raises(Stop):
        bring(importer(archive, connection, at(step, stop, times)), shard)
    send(shard, UNSAVED)
    undoer(shard, archive, connection).undo(NAME)
    assert_undone(shard, archive, connection)


@pytest.mark.parametrize("step", ["allot", "write", "intend", "open", "commit", "offer", "finish"])
def test_an_import_that_stood_still_meanwhile_brings_nothing(
    shard: Shard,
    archive: Archive,
    connection: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """Its second batch, when all of the undo comes between two of its steps."""
    monkeypatch.setattr("worker.import_undo.LEFT_S", 0.0)
    begin(shard, archive, connection)
    undo = partial(undoer(shard, archive, connection).undo, NAME)
    slow = importer(archive, connection, at(step, undo, 2))
    if step in ("offer", "finish"):
        bring(slow, shard)
    else:
        with pytest.raises(MovedMeanwhile, match="takes this import back"):
            bring(slow, shard)
    send(shard, UNSAVED)
    assert_undone(shard, archive, connection)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", ["save", "merge", "rebuild", "undo"])
def test_others_may_come_in_between(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, step: str, what: str
) -> None:
    begin(shard, archive, connection)
    bring(importer(archive, connection), shard)
    send(shard, UNSAVED)
    merging = Compactor(archive, lambda: connection, lambda: NOW_US, CompactLimits(), is_all=True)
    do: dict[str, Callable[[], object]] = {
        "save": lambda: saver(archive, connection).save(shard),
        "merge": merging.compact,
        "rebuild": lambda: rebuild(shard, archive, connection),
        "undo": lambda: undoer(shard, archive, connection).undo(NAME),
    }
    undoer(shard, archive, connection, at(step, do[what])).undo(NAME)
    assert_undone(shard, archive, connection)


def test_a_record_that_comes_while_latest_is_made_anew_is_the_latest(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(shard, archive, connection)
    bring(importer(archive, connection), shard)
    entries = Shard.entries
    times: list[int] = []

    def then_send(self: Shard, *args: object) -> object:
        found = entries(self, *args)  # type: ignore[arg-type]
        if not times:
            times.append(1)
            send(shard, UNSAVED)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "entries", then_send)
        undoer(shard, archive, connection).undo(NAME)
    assert_undone(shard, archive, connection)


def test_what_is_deleted_of_a_device_does_not_come_back(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    begin(shard, archive, connection)
    deletions.ask(shard, "a")
    bring(importer(archive, connection), shard)
    assert latest(shard)["a"] == 0
    undoer(shard, archive, connection).undo(NAME)
    assert ("a", 110) in archived(connection, archive), "the deletion has yet to be carried out"
    assert latest(shard)["a"] is None


def test_records_of_an_older_release_are_not_known(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(shard, archive, connection)
    with monkeypatch.context() as patch:
        patch.setattr(import_progress, "_noting_ids", lambda *args: [])
        importer(archive, connection).bring(shard, rows(*IMPORTED[:3]), Progress(), FIRST)
    importer(archive, connection).bring(shard, rows(*IMPORTED[3:]), FIRST, WHOLE)
    with pytest.raises(StoreError, match="begun by a release that did not record"):
        undoer(shard, archive, connection).undo(NAME)
    assert importer(archive, connection).progress(shard) == WHOLE


def test_the_ids_are_kept_when_the_log_is_shortened(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    begin(shard, archive, connection)
    bring(importer(archive, connection), shard)
    log_maintenance.checkpoint(archive)
    for path in archive.log_folder.glob("*.json"):
        if int(path.stem) < archive.open().version():
            path.unlink()
    send(shard, UNSAVED)
    undoer(shard, Archive(archive.root), connection).undo(NAME)
    assert_undone(shard, archive, connection)
