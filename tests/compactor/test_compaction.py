"""Compaction, retention and sweep on real files: no row gained or lost, whoever is killed or late."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compactor.compaction import Compactor, Sweep
from compactor.plan import Limits
from telemetry.archive import commit_log
from telemetry.archive.data_files import LiveFile
from telemetry.archive.operations import commits
from telemetry.archive.schema import columns, is_sorted, open_duckdb
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.entry_codec import Block, decode_intent
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import ArchiveError, PlanOutdated
from telemetry.model.record import Record, Stored
from telemetry.model.utc import DAY_US, day_of
from tests.worker.conftest import NOW_US, Ledger, archived
from worker.saving.saver import Saver

STEPS = ("plan", "merge", "commit", "done")
LIMITS = Limits(max_open_files=6)


class Killed(Exception):
    """The compactor is gone."""


def killed_at(step: str) -> Callable[[str], None]:
    def reached(name: str) -> None:
        if name == step:
            raise Killed(step)

    return reached


class Files:
    """An archive of many small files, and what is in it."""

    def __init__(self, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
        self.archive = archive
        self.connection = connection
        self._number = 0

    def add(self, files: int, day: int = 0, rows: int = 5) -> None:
        """Save files of a day, counted back from today; some rows in them are the same but for their ids."""
        for _ in range(files):
            self.save([self._stored(day, row) for row in range(rows)])

    def save(self, records: list[Stored]) -> None:
        """Save records."""
        table = self.archive.open()
        commit = commit_number(self.archive.committed(table, 0))
        written = self.archive.data_files.write(columns(map(Block.of, records)), commit)
        commits.commit(self.archive, table, written, 0, commit, NOW_US // 1_000)

    def _stored(self, day: int, row: int) -> Stored:
        self._number += 1
        at_us = NOW_US - day * DAY_US + self._number % 3
        record = Record(at_us, "tcp", "json", latitude=1.5, speed_kmh=float(row), location="ü", attributes='{"a":1}')
        return Stored("abc"[row % 3], self._number, NOW_US // 1_000, record)

    def live(self) -> list[LiveFile]:
        return self.archive.live(self.archive.open())

    def rows(self) -> Counter[tuple[Any, ...]]:
        """All columns of all rows."""
        files = [file.path for file in self.live()]
        query = "SELECT * REPLACE (epoch_us(timestamp) AS timestamp, epoch_us(received_at) AS received_at) "
        return Counter(self.connection.execute(query + "FROM read_parquet($1)", [files]).fetchall())

    def stored_at(self, device: int, number: int) -> Stored:
        return Stored(f"d{device}", number, NOW_US // 1_000, Record(NOW_US + number % 50, "tcp", "json"))

    def compactor(self, reached: Callable[[str], None] = lambda _: None, limits: Limits = LIMITS) -> Compactor:
        return Compactor(self.archive, lambda: self.connection, lambda: NOW_US, limits, reached)


@pytest.fixture
def files(archive: Archive, connection: duckdb.DuckDBPyConnection) -> Files:
    archive.open()
    return Files(archive, connection)


def settle(compactor: Compactor) -> int:
    """Compact until nothing is due."""
    done = 0
    while compactor.compact():
        done += 1
    return done


def test_long_texts_get_the_memory_that_they_need(files: Files) -> None:
    """Where a file is not sorted, all rows are, and a sort does not spill texts: with the setting's memory alone such a
    day would never be merged."""
    noise = random.Random(1)
    for number in range(3):
        texts = [noise.randbytes(400).hex() for _ in range(20_000)]
        files.save(
            [
                Stored("a", 20_000 * number + n, NOW_US // 1_000, Record(NOW_US, "tcp", "json", attributes=text))
                for n, text in enumerate(texts)
            ]
        )
    turn_over(files.live()[1])
    before = files.rows()
    with open_duckdb(memory_limit="16MiB") as connection:
        compactor = Compactor(files.archive, lambda: connection, lambda: NOW_US, LIMITS, is_all=True)
        assert compactor.compact() is not None
        [(limit,)] = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    assert limit == "16.0 MiB"
    assert len(files.live()) == 1
    assert files.rows() == before
    assert is_sorted(pq.ParquetFile(files.live()[0].path).read())


@pytest.mark.parametrize("turned", [False, True], ids=["sorted", "not sorted"])
def test_a_day_in_pieces(files: Files, turned: bool) -> None:
    """Both ways of merging."""
    for number in range(3):
        files.save([files.stored_at(n % 7, 5_000 * number + n) for n in range(5_000)])
    if turned:
        turn_over(files.live()[1])
    before, table = files.rows(), files.archive.open()
    old = files.archive.live(table)
    commits.replace(
        files.archive, table, old, files.archive.data_files.merge(lambda: files.connection, old, 3), NOW_US // 1_000
    )
    pieces = sorted(files.live(), key=lambda file: (file.first_device, file.first_us))
    assert [file.rows for file in pieces] == [5_000] * 3
    assert files.rows() == before
    assert is_sorted(pa.concat_tables(pq.ParquetFile(file.path).read() for file in pieces))


def turn_over(file: LiveFile) -> None:
    """Write a file anew with its rows in the opposite order, as none of ours has them."""
    rows = pq.ParquetFile(file.path).read()
    pq.write_table(rows.take(list(range(rows.num_rows - 1, -1, -1))), file.path)


def test_files_become_few_and_sorted_and_the_rows_stay(files: Files) -> None:
    for day in range(3):
        files.add(9, day)
    before = files.rows()
    assert before.total() == 135
    assert settle(files.compactor()) == 3
    assert files.rows() == before
    assert len(files.live()) < 9
    for file in files.live():
        rows = pq.ParquetFile(file.path).read(["device_id", "timestamp", "id"]).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["device_id"], row["timestamp"], row["id"]))
        assert file.rows == len(rows)
        assert (file.first_device, file.last_device) == (rows[0]["device_id"], rows[-1]["device_id"])
        assert file.transport == "tcp"
        assert {day_of(round(row["timestamp"].timestamp() * 1e6)) for row in rows} == {file.day}


def test_told_to_it_merges_every_day_at_once(files: Files) -> None:
    for day in (-1, 0, 1):
        files.add(2, day)
    before = files.rows()
    assert settle(files.compactor()) == 0
    everything = Compactor(files.archive, lambda: files.connection, lambda: NOW_US, LIMITS, is_all=True)
    assert [len(rewrite.files) for rewrite in everything.due()] == [2, 2, 2]
    assert settle(everything) == 3
    assert len(files.live()) == 3
    assert files.rows() == before


def test_the_log_keeps_the_greatest_id_and_the_shards_commit(files: Files) -> None:
    files.add(9, 1)
    table = files.archive.open()
    known = files.archive.greatest_id(table), files.archive.committed(table, 0)
    settle(files.compactor())
    table = files.archive.open()
    assert (files.archive.greatest_id(table), files.archive.committed(table, 0)) == known


def test_an_archive_that_is_not_there_is_not_made(files: Files, tmp_path: Path) -> None:
    nothing = Archive(tmp_path / "nothing")
    compactor = Compactor(nothing, lambda: files.connection, lambda: NOW_US)
    assert compactor.compact() is None
    assert compactor.due() == compactor.retain() == []
    assert Sweep(nothing, list, lambda: 0.0, 1).sweep() == []
    assert not nothing.root.exists()


def test_a_large_day_becomes_sorted_pieces(files: Files) -> None:
    files.add(8, 1, rows=300)
    before, size_bytes = files.rows(), sum(file.size_bytes for file in files.live())
    settle(files.compactor(limits=Limits(target_bytes=size_bytes // 3)))
    pieces = sorted(files.live(), key=lambda file: (file.first_device, file.first_us))
    assert len(pieces) == 3
    assert files.rows() == before
    assert [file.rows for file in pieces] == [800] * 3
    assert all(a.last_device <= b.first_device for a, b in pairwise(pieces))  # type: ignore[operator]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_leaves_every_row_once(files: Files, step: str) -> None:
    files.add(9, 1)
    before = files.rows()
    with pytest.raises(Killed):
        files.compactor(killed_at(step)).compact()
    assert files.rows() == before
    settle(files.compactor())
    assert files.rows() == before
    assert len(files.live()) == 1


@pytest.mark.parametrize("step", ["merge", "commit"])
def test_one_that_was_asleep_is_refused(files: Files, step: str) -> None:
    files.add(9, 1)
    before = files.rows()

    def meanwhile(name: str) -> None:
        if name == step:
            assert settle(files.compactor()) == 1

    with pytest.raises(PlanOutdated):
        files.compactor(meanwhile).compact()
    assert files.rows() == before
    assert len(files.live()) == 1


def test_one_that_was_asleep_while_the_day_was_given_up_brings_nothing_back(files: Files) -> None:
    files.add(9, 10)

    def meanwhile(name: str) -> None:
        if name == "commit":
            assert files.compactor(limits=Limits(retention_days=9)).retain()

    with pytest.raises(PlanOutdated):
        files.compactor(meanwhile).compact()
    assert files.live() == []


def test_saves_and_compactions_at_once_lose_nothing(
    files: Files, shard: Shard, archive: Archive, ledger: Ledger
) -> None:
    done = threading.Event()

    def compact() -> int:
        count = 0
        with open_duckdb() as connection:
            compactor = Compactor(archive, lambda: connection, lambda: NOW_US, Limits(max_open_files=4))
            while not done.is_set():
                count += settle(compactor)
        return count

    def read() -> int:
        reads = 0
        with open_duckdb() as connection:
            while not done.is_set():
                least = saved[0]
                found = archived(connection, archive)
                assert found.total() >= least
                assert max(found.values(), default=1) == 1, "nothing is there twice"
                reads += 1
        return reads

    saved = [0]
    with ThreadPoolExecutor(2) as threads:
        compacting, reading = threads.submit(compact), threads.submit(read)
        for _ in range(40):
            ledger.append(shard, ["a", "b"], days=2)
            Saver(archive, files.connection, lambda: NOW_US // 1_000).save(shard)
            saved[0] = ledger.acknowledged.total()
        done.set()
        assert compacting.result() > 5
        assert reading.result() > 5
    assert archived(files.connection, archive) == ledger.acknowledged


def test_a_file_that_lost_rows_is_not_merged(files: Files) -> None:
    files.add(8, 1)
    victim, other = files.live()[:2]
    Path(victim.path).unlink()
    files.connection.execute(
        f"COPY (SELECT * FROM read_parquet('{other.path}') LIMIT 4) TO '{victim.path}' (FORMAT parquet)"
    )
    with pytest.raises(ArchiveError, match="40 rows, and 39"):
        files.compactor().compact()
    assert victim in files.live()


# Retention -------------------------------------------------------------------------------------------


def test_old_days_are_given_up_whole(files: Files) -> None:
    for day in (0, 1, 5, 6):
        files.add(2, day)
    limits = Limits(retention_days=5)
    assert files.compactor(limits=limits).expired() == [day_of(NOW_US - day * DAY_US) for day in (6, 5)]
    assert len(files.live()) == 8, "to ask changes nothing"
    files.compactor(limits=limits).retain()
    assert {file.day for file in files.live()} == {day_of(NOW_US), day_of(NOW_US - DAY_US)}
    assert files.rows().total() == 20
    assert files.compactor(limits=limits).retain() == []


def test_many_days_are_given_up_together_and_only_for_a_while(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compactor.compaction.GIVEN_UP_DAYS", 4)
    for day in range(10, 20):
        files.add(1, day)
    compactor, before = files.compactor(limits=Limits(retention_days=5)), files.archive.open().version()
    asked = iter([False, False, True])
    assert len(compactor.retain(lambda: next(asked))) == 8
    assert files.archive.open().version() == before + 2
    assert len(compactor.retain()) == 2
    assert files.live() == []


def test_days_are_merged_in_turn(files: Files) -> None:
    for day in (30, 20, 10):
        files.add(9, day)
    compactor = files.compactor()
    merged = [rewrite.day for _ in range(2) if (rewrite := compactor.compact())]
    files.add(9, 30)
    merged += [rewrite.day for _ in range(2) if (rewrite := compactor.compact())]
    assert merged == [day_of(NOW_US - day * DAY_US) for day in (30, 20, 10, 30)]


# The sweep -------------------------------------------------------------------------------------------


class Hands:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def on_disk(archive: Archive) -> set[str]:
    return {str(path) for path in archive.root.glob("date=*/*.parquet")}


def test_the_sweep_waits_for_queries_then_deletes_what_is_replaced(files: Files) -> None:
    files.add(9, 1)
    hands = Hands()
    sweep = Sweep(files.archive, list, hands, 3_600)
    settle(files.compactor())
    assert sweep.sweep() == []
    hands.now_s += 3_599
    assert sweep.sweep() == []
    assert len(on_disk(files.archive)) == 10
    hands.now_s += 1
    assert len(sweep.sweep()) == 9
    assert on_disk(files.archive) == {file.path for file in files.live()}
    assert files.rows().total() == 45
    assert sweep.sweep() == []


def test_a_compaction_that_the_sweep_sees_under_way_is_refused_and_done_again(files: Files) -> None:
    """Else its file could be listed and replaced between two looks, and deleted while a query still reads it."""
    hands = Hands()
    files.add(9, 1)

    def seen(step: str) -> None:
        if step == "commit":
            assert sweep.sweep() == []

    sweep = Sweep(files.archive, list, hands, 3_600)
    with pytest.raises(PlanOutdated):
        files.compactor(seen).compact()
    [left] = on_disk(files.archive) - {file.path for file in files.live()}
    assert settle(files.compactor()) == 1
    hands.now_s += 3_600
    assert sweep.sweep() == [left], "what was replaced a moment ago is kept"
    assert files.rows().total() == 45


def test_a_saves_file_that_was_replaced_is_kept_for_queries_from_before(
    files: Files, shard: Shard, ledger: Ledger
) -> None:
    """The sweep saw it before it was in the table; that time doesn't count."""
    hands = Hands()

    def under_way() -> list[str]:
        intent = shard.state().intent
        return [decode_intent(intent).commit] if intent else []

    def seen(step: str) -> None:
        if step == "commit":
            assert sweep.sweep() == []

    sweep = Sweep(files.archive, under_way, hands, 3_600)
    for _ in range(2):
        ledger.append(shard, ["a"])
        Saver(files.archive, files.connection, lambda: NOW_US // 1_000, reached=seen).save(shard)
    everything = Compactor(files.archive, lambda: files.connection, lambda: NOW_US, LIMITS, is_all=True)
    hands.now_s += 3_600
    replaced = {file.path for file in files.live()}
    settle(everything)
    assert sweep.sweep() == []
    hands.now_s += 3_600
    assert set(sweep.sweep()) == replaced


def test_before_the_sweep_deletes_the_log_is_on_disk(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compactor was killed before it synced its commit: a power cut could take it back, and the old files count."""
    files.add(9, 1)
    killed = Archive(files.archive.root, killed_at("make last"))
    with pytest.raises(Killed):
        Compactor(killed, lambda: files.connection, lambda: NOW_US, LIMITS).compact()
    assert len(files.live()) == 1
    hands = Hands()
    order: list[str] = []
    sweep = Sweep(files.archive, list, hands, 3_600)
    sweep.sweep()
    hands.now_s += 3_600
    monkeypatch.setattr(commit_log, "fsync", lambda path: order.append(path.name))
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: order.append("unlink"))
    assert len(sweep.sweep()) == 9
    assert order.index(f"{10:020}.json") < order.index("unlink")
    assert order[-10:] == ["_delta_log", *["unlink"] * 9]


def test_a_compactor_that_slept_past_the_sweep_is_refused(files: Files) -> None:
    files.add(9, 1)
    hands = Hands()
    sweep = Sweep(files.archive, list, hands, 3_600)

    def asleep(step: str) -> None:
        if step == "commit":
            sweep.sweep()
            hands.now_s += 3_600
            assert len(sweep.sweep()) == 1, "its file looks like one of an attempt that failed"

    with pytest.raises((PlanOutdated, FileNotFoundError)):
        files.compactor(asleep).compact()
    assert files.rows().total() == 45


def test_a_compactor_that_commits_while_the_sweep_looks_keeps_its_file(files: Files) -> None:
    """The fence decides: who commits before it is seen, who comes after it is refused."""
    files.add(9, 1)
    hands = Hands()
    refused: list[bool] = []

    def asleep(step: str) -> None:
        if step == "commit":
            for wait_s in (0, 3_600):
                hands.now_s += wait_s
                Sweep.sweep(sweep)

    def while_it_looks(_: str) -> None:
        refused.append(True)

    sweep = Sweep(files.archive, list, hands, 3_600, while_it_looks)
    with pytest.raises((PlanOutdated, FileNotFoundError)):
        files.compactor(asleep).compact()
    assert refused
    assert files.rows().total() == 45
    settle(files.compactor())
    assert files.rows().total() == 45


def test_a_saves_file_is_kept_while_its_intent_stands(files: Files, shard: Shard, ledger: Ledger) -> None:
    hands, under_way = Hands(), [""]
    sweep = Sweep(files.archive, lambda: under_way, hands, 3_600)

    def asleep(step: str) -> None:
        if step == "commit":
            [path] = on_disk(files.archive)
            under_way[:] = [Path(path).name.partition("-")[0]]
            for wait_s in (0, 3_600):
                hands.now_s += wait_s
                assert sweep.sweep() == []

    ledger.append(shard, ["a"])
    Saver(files.archive, files.connection, lambda: NOW_US // 1_000, reached=asleep).save(shard)
    assert archived(files.connection, files.archive) == ledger.acknowledged


def test_a_save_whose_file_was_swept_fails_and_is_done_again(files: Files, shard: Shard, ledger: Ledger) -> None:
    def swept(step: str) -> None:
        if step == "commit":
            for path in on_disk(files.archive):
                Path(path).unlink()

    ledger.append(shard, ["a"])
    with pytest.raises(FileNotFoundError):
        Saver(files.archive, files.connection, lambda: NOW_US // 1_000, reached=swept).save(shard)
    Saver(files.archive, files.connection, lambda: NOW_US // 1_000).save(shard)
    assert archived(files.connection, files.archive) == ledger.acknowledged


def test_a_sweep_fences_some_days_and_leaves_others_to_the_next(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compactor.compaction.FENCED_DAYS", 2)
    for day in (1, 2, 3, 4, 5):
        files.add(9, day)
    settle(files.compactor())
    for day in (1, 2, 3, 4, 5):
        files.add(8, day)
    settle(files.compactor())
    hands, fences = Hands(), []
    sweep = Sweep(files.archive, list, hands, 3_600, lambda step: fences.append(step) if step == "fence" else None)
    deleted = 0
    for looks in (2, 4, 5, 5):
        deleted += len(sweep.sweep())
        assert len(fences) == looks
        hands.now_s += 3_600
    assert deleted == 5 * 18
    assert on_disk(files.archive) == {file.path for file in files.live()}
