"""`whimbrel backup` and `restore` as they are called: what they keep, refuse, and say."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import redis
from deltalake import DeltaTable

from cli.backup import manifest
from cli.backup.backup_command import COMMAND
from cli.backup.restore_command import COMMAND as RESTORE
from telemetry.archive.table import Archive
from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import ConfigError, NotSetUp, StoreError
from telemetry.system import clock
from telemetry.system.runtime_dir import RESTORING, require_restored
from tests.cli.conftest import Run
from tests.conftest import settings_of
from tests.small_disk import SmallDisk
from tests.worker.conftest import Ledger, archived
from tests.worker.saving.test_saver import drain


@pytest.fixture
def ledger(shard: Shard, archive: Archive, client: redis.Redis) -> Iterator[Ledger]:
    """A box that has saved two records, and has two more that wait."""
    client.config_set("repl-diskless-sync-delay", 0)
    found = Ledger()
    found.append(shard, "ab")
    drain(shard, archive)
    found.append(shard, "ab")
    yield found
    client.config_set("repl-diskless-sync-delay", 5)


def save(shard: Shard, archive: Archive, ledger: Ledger) -> None:
    ledger.append(shard, "c")
    drain(shard, archive)


def empty(folder: Path) -> Settings:
    """Settings of a box with a Redis of its own, which has nothing yet."""
    return load(environ={"WHIMBREL__DATA__DIR": str(folder)})


def inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*.parquet")}


def test_what_is_said_and_noted(
    ledger: Ledger, settings: Settings, client: redis.Redis, tmp_path: Path, call: Run
) -> None:
    done = call(COMMAND, settings, tmp_path / "to", "--json")
    made = done.json
    assert (made["saved_records"], made["unsaved_records"], made["removed"]) == (2, 2, [])
    assert made["new_bytes"] == made["size_bytes"] > 0
    noted = shared_state.backup(client)
    assert noted is not None
    assert (noted.path, noted.made_ms, noted.size_bytes) == (made["path"], made["made_ms"], made["size_bytes"])
    assert abs(noted.made_ms - clock.now_ms()) < 60_000
    assert re.search(
        r"Z: 2 saved records and some 2 that wait, .* KiB, .* of it new; ",
        call(COMMAND, settings, tmp_path / "to").out,
    )
    assert os.stat(made["path"]).st_mode & 0o077 == 0, "it holds what nobody else may read"


def test_files_of_the_backup_before_are_links(
    ledger: Ledger, shard: Shard, settings: Settings, archive: Archive, tmp_path: Path, call: Run
) -> None:
    first, second = (Path(call(COMMAND, settings, tmp_path / "to", "--json").json["path"]) for _ in range(2))
    assert inodes(first) == inodes(second) != {}
    save(shard, archive, ledger)
    third = call(COMMAND, settings, tmp_path / "to", "--json").json
    assert inodes(second).items() < inodes(Path(third["path"])).items()
    shutil.rmtree(first)
    shutil.rmtree(second)
    assert call(COMMAND, settings, "--verify", tmp_path / "to", "--json").json == {"backups": {third["path"]: []}}


def test_the_table_in_a_backup_can_be_read_by_itself(
    ledger: Ledger, settings: Settings, tmp_path: Path, call: Run, connection: duckdb.DuckDBPyConnection
) -> None:
    made = Path(call(COMMAND, settings, tmp_path / "to", "--json").json["path"])
    shutil.rmtree(settings.archive_dir)
    files = DeltaTable(str(made / "archive")).file_uris()
    assert connection.execute("SELECT count(*) FROM read_parquet($1)", [files]).fetchall() == [(2,)]


def test_only_the_newest_are_kept(ledger: Ledger, settings: Settings, tmp_path: Path, call: Run) -> None:
    made = [call(COMMAND, settings, tmp_path / "to", "--json", "--keep", 2).json for _ in range(4)]
    assert [one["removed"] for one in made] == [[], [], [made[0]["path"]], [made[1]["path"]]]
    assert sorted(map(str, (tmp_path / "to").glob("2*"))) == [made[2]["path"], made[3]["path"]]
    assert call(COMMAND, settings, "--verify", tmp_path / "to").status == 0


def test_what_was_broken_off_is_no_backup_and_goes_away(
    ledger: Ledger, settings: Settings, tmp_path: Path, call: Run
) -> None:
    made = Path(call(COMMAND, settings, tmp_path / "to", "--json").json["path"])
    for name in ("2026-01-01T00-00-00.000Z.part", "2026-01-01T00-00-00.000Z.gone"):
        shutil.copytree(made, made.parent / name)
    held = settings.archive_dir / "_backup" / "left" / "date=2026-01-01"
    held.mkdir(parents=True)
    assert len(call(COMMAND, settings, "--verify", made.parent, "--json").json["backups"]) == 1
    call(COMMAND, settings, made.parent)
    assert len(list(made.parent.glob("2*"))) == 2
    assert list((settings.archive_dir / "_backup").iterdir()) == []


@pytest.mark.parametrize("where", ["to", "archive"])
def test_two_at_once_do_not_meet(where: str, ledger: Ledger, settings: Settings, tmp_path: Path, call: Run) -> None:
    call(COMMAND, settings, tmp_path / "to")
    lock = tmp_path / "to" / "lock" if where == "to" else settings.archive_dir / "_backup"
    file = os.open(lock, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match=r"another backup .*is under way"):
        call(COMMAND, settings, tmp_path / "to")
    os.close(file)
    assert len(list((tmp_path / "to").glob("2*"))) == 1


def test_another_disk_that_is_too_small_and_then_is_not(
    ledger: Ledger, shard: Shard, archive: Archive, settings: Settings, disk: SmallDisk, call: Run
) -> None:
    disk.leave(3_000)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot back up"):
            call(COMMAND, settings, disk.path / "to")
        assert [path.name for path in (disk.path / "to").iterdir()] == ["lock"]
        assert list((settings.archive_dir / "_backup").iterdir()) == []
    disk.release()
    first = call(COMMAND, settings, disk.path / "to", "--json").json
    save(shard, archive, ledger)
    second = call(COMMAND, settings, disk.path / "to", "--json").json
    assert inodes(Path(first["path"])).items() < inodes(Path(second["path"])).items()
    assert call(COMMAND, settings, "--verify", disk.path / "to").status == 0


def test_a_byte_that_changed_is_found(ledger: Ledger, settings: Settings, tmp_path: Path, call: Run) -> None:
    made = Path(call(COMMAND, settings, tmp_path / "to", "--json").json["path"])
    [dump] = made.glob("redis/*")
    held = dump.read_bytes()
    dump.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    file = next(made.glob("archive/date=*/*.parquet"))
    file.unlink()
    done = call(COMMAND, settings, "--verify", made)
    assert done.status == 1
    assert f"{dump}: its content differs from the manifest" in done.out
    assert f"{file}: No such file or directory" in done.out
    new = empty(tmp_path / "new")
    done = call(RESTORE, new, made)
    assert (done.status, (new.archive_dir).exists()) == (1, False)
    assert "this backup is damaged, and nothing was restored" in done.out


def test_a_box_without_a_store_is_not_backed_up(
    client: redis.Redis, settings: Settings, tmp_path: Path, call: Run
) -> None:
    with pytest.raises(NotSetUp):
        call(COMMAND, settings, tmp_path / "to")


def test_not_into_the_archive(ledger: Ledger, settings: Settings, call: Run) -> None:
    with pytest.raises(ConfigError, match=r"it is part of the data to back up"):
        call(COMMAND, settings, settings.archive_dir / "to")


# Restoring -------------------------------------------------------------------------------------------


@pytest.fixture
def made(ledger: Ledger, shard: Shard, archive: Archive, settings: Settings, tmp_path: Path, call: Run) -> list[Path]:
    """Two backups, of which the second has one record more that is saved, and none that waits."""
    first = call(COMMAND, settings, tmp_path / "to", "--json").json["path"]
    save(shard, archive, ledger)
    return [Path(first), Path(call(COMMAND, settings, tmp_path / "to", "--json").json["path"])]


def test_the_newest_or_the_one_of_a_time(
    made: list[Path], tmp_path: Path, call: Run, connection: duckdb.DuckDBPyConnection
) -> None:
    moment = manifest.read(made[0]).made_ms / 1_000
    cases = [((), made[1], 5), (("--at", moment), made[0], 2), (("--at", moment + 0.000_001), made[0], 2)]
    for number, (more, chosen, records) in enumerate(cases):
        new = empty(tmp_path / str(number))
        done = call(RESTORE, new, tmp_path / "to", *more)
        assert done.status == 0
        assert f"restoring {chosen}, made at " in done.out
        assert f"the archive has {records} records" in done.out
        assert archived(connection, Archive(new.archive_dir)).total() == records
        assert (new.redis_dir / "appendonlydir" / "appendonly.aof.manifest").is_file()
        assert (new.redis_dir / "kind").read_text() in ("redis", "valkey")
    with pytest.raises(StoreError, match=rf"its oldest backup is {made[0].name}, after the time given"):
        call(RESTORE, empty(tmp_path / "none"), tmp_path / "to", "--at", moment - 1)
    with pytest.raises(StoreError, match=r"there is no whole backup in it"):
        call(RESTORE, empty(tmp_path / "none"), tmp_path)


def test_what_is_there_is_moved_aside_or_left(made: list[Path], tmp_path: Path, call: Run) -> None:
    new = empty(tmp_path / "new")
    call(RESTORE, new, made[1])
    (new.archive_dir / "mine").touch()
    with pytest.raises(ConfigError, match=r"archive and .*appendonlydir would be overwritten; move it, or use --force"):
        call(RESTORE, new, made[0])
    assert (new.archive_dir / "mine").exists()
    done = call(RESTORE, new, made[0], "--force")
    assert done.status == 0
    aside = re.findall(r"what was there is now (.*)", done.out)
    assert [Path(path).exists() for path in aside] == [True, True]
    assert not (new.archive_dir / "mine").exists()
    assert (Path(aside[0]) / "mine").exists()


@pytest.mark.parametrize("lock", ["up.lock", "redis/lock"])
def test_a_box_that_runs_is_left_alone(lock: str, made: list[Path], tmp_path: Path, call: Run) -> None:
    new = empty(tmp_path / "new")
    path = new.data_dir / lock
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"running.*; stop it first"):
            call(RESTORE, new, made[0], "--force")
    assert not new.archive_dir.exists()


def test_a_restore_that_was_broken_off_is_done_again(
    made: list[Path], tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch, connection: duckdb.DuckDBPyConnection
) -> None:
    """Whatever its last step was, nothing starts on it, and no table can be opened."""
    for renames in (0, 1):
        new = empty(tmp_path / str(renames))
        left = renames

        def rename(path: Path, target: Path) -> Path:
            nonlocal left
            if left == 0:
                raise OSError("cut off")
            left -= 1
            os.rename(path, target)
            return target

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", rename)
            with pytest.raises(StoreError, match=r"cut off"):
                call(RESTORE, new, made[1])
        assert Archive(new.archive_dir).open_existing() is None
        assert (new.redis_dir / "appendonlydir").exists() is bool(renames)
        with pytest.raises(ConfigError, match=r"a restore into .* was interrupted"):
            require_restored(new.data_dir)
        assert call(RESTORE, new, made[1]).status == 0
        assert not (new.data_dir / RESTORING).exists()
        assert archived(connection, Archive(new.archive_dir)).total() == 5


@pytest.mark.parametrize(
    ("only", "there", "words"),
    [
        ("archive", ["archive"], "Only the archive was restored"),
        ("store", ["redis"], "Only Redis was put back"),
    ],
)
def test_one_of_the_two(only: str, there: list[str], words: str, made: list[Path], tmp_path: Path, call: Run) -> None:
    new = empty(tmp_path / "new")
    done = call(RESTORE, new, made[0], "--only", only)
    assert words in done.out
    assert "whimbrel recover\n--yes" in done.out or "whimbrel recover --yes" in done.out
    found = {"archive": new.archive_dir.exists(), "redis": (new.redis_dir / "appendonlydir").exists()}
    assert [name for name, is_there in found.items() if is_there] == there


def test_a_redis_that_others_run(made: list[Path], tmp_path: Path, settings: Settings, call: Run) -> None:
    theirs = settings_of(f"unix://{tmp_path}/none.sock", tmp_path / "new")
    with pytest.raises(ConfigError, match=r"name the folder of its data .*--redis-dir"):
        call(RESTORE, theirs, made[0])
    with pytest.raises(ConfigError, match=r"is running; stop it first"):
        call(RESTORE, settings, made[0], "--redis-dir", tmp_path / "theirs")
    assert call(RESTORE, theirs, made[0], "--redis-dir", tmp_path / "theirs").status == 0
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == ["appendonlydir"]
    with pytest.raises(ConfigError, match=r"redis.url is not set"):
        call(RESTORE, empty(tmp_path / "own"), made[0], "--redis-dir", tmp_path / "theirs")


def test_a_backup_of_a_newer_release(made: list[Path], tmp_path: Path, call: Run) -> None:
    text = (made[0] / manifest.NAME).read_text()
    (made[0] / manifest.NAME).write_text(text.replace('"layout": 1', '"layout": 2', 1).replace('"files"', '"files2"'))
    with pytest.raises(
        StoreError, match=r"its layout is 2, this release of Whimbrel knows 1: use the release that made"
    ):
        call(RESTORE, empty(tmp_path / "new"), made[0])
