"""`whimbrel shell`: both views, saved or not, with and without Redis, by itself and by DuckDB's own program."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import duckdb
import pytest

from cli.querying.shell import COMMAND, views_sql
from telemetry.archive.schema import nothing_sql
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.system import clock
from tests.cli.conftest import Run
from tests.conftest import settings_of
from worker.saving.saver import Saver

AT_US = 1_795_478_400_000_000


def append(shard: Shard, *offsets: int) -> None:
    sent = [Sent("van", Record(AT_US + one, "tcp", "json", speed_kmh=float(one))) for one in offsets]
    append_batches(shard, [Batch(pack(sent))], Limits())


@pytest.fixture
def filled(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Shard:
    append(shard, 1, 2)
    Saver(archive, connection, clock.now_ms).save(shard)
    append(shard, 3)
    return shard


def test_one_question(filled: Shard, settings: Settings, call: Run) -> None:
    done = call(
        COMMAND, settings, "-c", "SELECT sum(speed_kmh)::INT AS s, (SELECT speed_kmh FROM latest) AS l FROM records"
    )
    assert (done.status, done.err) == (0, "")
    assert " 6 " in done.out
    assert "3.0" in done.out
    wrong = call(COMMAND, settings, "-c", "SELECT nothing FROM records")
    assert wrong.status == 1
    assert "nothing" in wrong.err


def test_the_date_of_what_is_saved_and_of_what_is_not(filled: Shard, settings: Settings, call: Run) -> None:
    done = call(COMMAND, settings, "-c", "SELECT date, 'n' || count(*) FROM records GROUP BY ALL")
    assert (done.status, done.err) == (0, "")
    assert "2026-11-24" in done.out
    assert "n3" in done.out


def test_without_redis_the_files_alone(filled: Shard, settings: Settings, tmp_path: Path, call: Run) -> None:
    away = settings_of("redis://127.0.0.1:1", tmp_path)
    assert away.archive_dir == settings.archive_dir
    done = call(COMMAND, away, "-c", "SELECT 'n' || count(*) FROM records")
    assert done.status == 0
    assert "n2" in done.out
    assert "without what waits to be saved" in done.err


def test_a_box_without_a_record(shard: Shard, settings: Settings, call: Run) -> None:
    assert "n0" in call(COMMAND, settings, "-c", "SELECT 'n' || count(*) FROM latest").out


def test_the_prompt(filled: Shard, settings: Settings, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 'n' ||\n count(*) FROM records;\n\nSELEKT;\nSELECT 'on';\n"))
    done = call(COMMAND, settings)
    assert done.status == 0
    assert "n3" in done.out
    assert "SELEKT" in done.err
    assert "on" in done.out.rpartition("n3")[2]


def test_what_the_program_begins_with_is_sql(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    connection.execute(f"CREATE TABLE t AS FROM {nothing_sql()}")
    connection.execute(views_sql([], "t"))
    assert connection.execute("SELECT count(*) FROM latest").fetchone() == (0,)


def test_the_date_is_in_utc_in_any_time_zone(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(f"CREATE TABLE late AS FROM {nothing_sql()}")
    connection.execute("INSERT INTO late (device_id, timestamp) VALUES ('van', '2026-03-01T23:30:00Z')")
    connection.execute(views_sql([], "late"))
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    assert connection.execute("SELECT date::VARCHAR FROM records").fetchall() == [("2026-03-01",)]
