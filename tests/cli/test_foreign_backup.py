"""A backup that somebody else has written: `restore` and `--verify` stay inside its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.backup import manifest
from cli.backup.backup_command import COMMAND
from cli.backup.restore_command import COMMAND as RESTORE
from telemetry.archive.table import Archive
from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import StoreError
from tests.cli.conftest import Run
from tests.worker.conftest import Ledger
from tests.worker.saving.test_saver import drain

SECRET = b"a file of the attacker's choice"


@pytest.fixture
def backup(
    shard: Shard, archive: Archive, client: redis.Redis, settings: Settings, tmp_path: Path, call: Run
) -> Iterator[Path]:
    """A whole backup of a box with a saved record and a waiting one."""
    client.config_set("repl-diskless-sync-delay", 0)
    ledger = Ledger()
    ledger.append(shard, "a")
    drain(shard, archive)
    ledger.append(shard, "a")
    yield Path(call(COMMAND, settings, tmp_path / "to", "--json").json["path"])
    client.config_set("repl-diskless-sync-delay", 5)


def rewrite(backup: Path, **files: Any) -> None:
    """Add files to the manifest, as somebody who can write to the folder would."""
    path = backup / manifest.NAME
    found = json.loads(path.read_bytes())
    found["files"] |= files
    path.write_text(json.dumps(found))


def described(content: bytes) -> dict[str, Any]:
    return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize(
    "path",
    [
        "archive/../../../escaped",
        "archive/date=2026-01-01/../../../../escaped",
        "../escaped",
        "archive/..",
        "archive/./../x",
        "archive//etc/passwd",
        "/etc/passwd",
        "redis/../../escaped",
        "redis/dump.rdb/../../../escaped",
        "manifest.json",
        "archive",
        "archive/",
        "archive/a\0b",
        "",
    ],
)
def test_a_path_that_leaves_the_backup_is_refused(
    path: str, backup: Path, settings: Settings, tmp_path: Path, call: Run
) -> None:
    """The file exists and its checksum is right, so that nothing else is wrong with the backup."""
    for escaped in (tmp_path / "escaped", tmp_path / "to" / "escaped"):
        escaped.write_bytes(SECRET)
    rewrite(backup, **{path: described(SECRET)})
    target = tmp_path / "new"
    with pytest.raises(StoreError, match="which is not a file of a backup"):
        call(COMMAND, settings, "--verify", tmp_path / "to")
    with pytest.raises(StoreError, match="which is not a file of a backup"):
        call(RESTORE, load(environ={"WHIMBREL__DATA__DIR": str(target)}), tmp_path / "to")
    assert not target.exists()


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_out_of_the_backup_is_a_fault(
    is_folder: bool, backup: Path, settings: Settings, tmp_path: Path, call: Run
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_bytes(SECRET)
    if is_folder:
        (backup / "archive" / "linked").symlink_to(outside)
        rewrite(backup, **{"archive/linked/passwd": described(SECRET)})
    else:
        (backup / "archive" / "passwd").symlink_to(outside / "passwd")
        rewrite(backup, **{"archive/passwd": described(SECRET)})
    verified = call(COMMAND, settings, "--verify", tmp_path / "to")
    assert verified.status == 1
    assert "it is a link or no regular file" in verified.out
    target = tmp_path / "new"
    assert call(RESTORE, load(environ={"WHIMBREL__DATA__DIR": str(target)}), tmp_path / "to").status == 1
    assert not (target / "archive").exists()
