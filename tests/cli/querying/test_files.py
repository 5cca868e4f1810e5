"""`whimbrel files` on a real archive: every committed file of a range, and no other."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cli.querying.files import COMMAND
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import StoreError
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from telemetry.system import clock
from tests.cli.conftest import Run
from tests.conftest import settings_of
from worker.saving.saver import Saver

MIDNIGHT_US = 1_795_478_400_000_000
"""2026-11-24."""


def append(shard: Shard, device: str, *days: int) -> None:
    sent = [Sent(device, Record(MIDNIGHT_US + day * DAY_US + 1, "tcp", "json")) for day in days]
    append_batches(shard, [Batch(pack(sent))], Limits())


@pytest.fixture
def saved(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Shard:
    """A box with a file of each of three days, one more of the second, and one that no commit names."""
    saver = Saver(archive, connection, clock.now_ms)
    append(shard, "a", 0, 1, 2)
    append(shard, "b", 1)
    saver.save(shard)
    append(shard, "z", 1)
    saver.save(shard)
    stray = archive.root / "date=2026-11-24" / "stray.parquet"
    stray.write_bytes(b"of an attempt that failed")
    return shard


def days(lines: list[str]) -> list[str]:
    return [Path(line).parent.name.removeprefix("date=") for line in lines]


def test_each_committed_file_once(saved: Shard, settings: Settings, call: Run) -> None:
    done = call(COMMAND, settings)
    assert done.status == 0
    assert days(done.lines) == ["2026-11-24", "2026-11-25", "2026-11-25", "2026-11-26"]
    assert all(Path(line).is_absolute() and Path(line).is_file() for line in done.lines)
    assert not any("stray" in line for line in done.lines)
    assert done.err == ""


def test_files_of_a_range_and_of_a_device(saved: Shard, settings: Settings, call: Run) -> None:
    assert days(call(COMMAND, settings, "--start", "2026-11-25", "--end", "2026-11-25").lines) == ["2026-11-25"] * 2
    assert days(call(COMMAND, settings, "--device", "a").lines) == ["2026-11-24", "2026-11-25", "2026-11-26"]
    assert days(call(COMMAND, settings, "--device-id", "z").lines) == ["2026-11-25"]
    assert call(COMMAND, settings, "--start", "2027-01-01").out == ""


def test_files_for_json_xargs_and_duckdb(
    saved: Shard, settings: Settings, call: Run, connection: duckdb.DuckDBPyConnection
) -> None:
    paths = call(COMMAND, settings).lines
    found = call(COMMAND, settings, "--json").json
    assert [one["path"] for one in found["files"]] == paths
    assert sum(one["records"] for one in found["files"]) == 5
    assert all(one["bytes"] == Path(one["path"]).stat().st_size for one in found["files"])
    assert found["unsaved_records"] == 0
    assert call(COMMAND, settings, "-0").out == "".join(f"{path}\0" for path in paths)
    sql = call(COMMAND, settings, "--sql").out
    assert connection.execute(f"SELECT count(*) FROM {sql}").fetchone() == (5,)


def test_no_file_is_a_table_too(
    shard: Shard, settings: Settings, call: Run, connection: duckdb.DuckDBPyConnection
) -> None:
    append(shard, "a", 0)
    empty = connection.execute(f"SELECT * FROM {call(COMMAND, settings, '--sql').out}")
    names = [column[0] for column in empty.description or []]
    assert empty.fetchall() == []
    Saver(Archive(settings.archive_dir), connection, clock.now_ms).save(shard)
    full = connection.execute(f"SELECT * FROM {call(COMMAND, settings, '--sql').out}")
    assert [column[0] for column in full.description or []] == names


def test_what_waits_is_hinted_at_where_it_is_of_the_range(saved: Shard, settings: Settings, call: Run) -> None:
    append(saved, "a", 0, 5)
    hint = "whimbrel files: 1 records of this range wait to be saved"
    assert hint in call(COMMAND, settings, "--end", "2026-11-24").err
    assert call(COMMAND, settings, "--start", "2026-11-25", "--end", "2026-11-26").err == ""
    assert call(COMMAND, settings, "--device", "b").err == ""
    assert call(COMMAND, settings, "--json").json["unsaved_records"] == 2


def test_without_redis_the_files_are_there(saved: Shard, settings: Settings, tmp_path: Path, call: Run) -> None:
    away = settings_of(f"unix://{tmp_path}/nobody.sock", tmp_path)
    assert away.archive_dir == settings.archive_dir
    done = call(COMMAND, away)
    assert len(done.lines) == 4
    assert done.err == ""
    assert call(COMMAND, away, "--json").json["unsaved_records"] is None


def test_without_an_archive_there_are_none(tmp_path: Path, call: Run) -> None:
    nothing = settings_of(f"unix://{tmp_path}/nobody.sock", tmp_path)
    assert call(COMMAND, nothing).out == ""
    assert not nothing.data_dir.exists(), "looking makes nothing"


def test_an_archive_that_can_not_be_read_is_named(saved: Shard, settings: Settings, call: Run) -> None:
    for path in (settings.archive_dir / "_delta_log").glob("*.json"):
        path.write_text("no JSON")
    with pytest.raises(StoreError, match="cannot read the archive"):
        call(COMMAND, settings)
