from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.config.settings import Data, Settings
from telemetry.model.errors import ConfigError
from telemetry.system.permissions import PRIVATE, SHARED, group_id, keep_private, restrict, share_archive


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The data folder of an earlier release."""
    folder = tmp_path / "data"
    for name in ("archive/date=2026-01-01", "redis", "notes"):
        (folder / name).mkdir(parents=True)
    for name in ("archive/date=2026-01-01/a.parquet", "up.lock", "notes/mine.txt", "mine.txt"):
        (folder / name).touch()
    return folder


def of(folder: Path, group: str = "") -> Settings:
    return Settings(data=Data(dir=str(folder), group=group))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_old_folder_is_shut_once(old: Path) -> None:
    assert restrict(of(old)) == [f"{old} was open to others, mode 0755; its mode is 0700 now"]
    assert mode(old) == mode(old / "archive") == mode(old / "redis") == 0o700
    assert mode(old / "up.lock") == 0o600
    assert restrict(of(old)) == []


def test_what_is_not_ours_stays(old: Path, tmp_path: Path) -> None:
    (old / "tmp").symlink_to(tmp_path)
    restrict(of(old))
    assert (mode(old / "notes"), mode(old / "mine.txt")) == (0o755, 0o644)
    shared = tmp_path / "like-tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    assert restrict(of(shared)) == []
    assert mode(shared) == 0o1777
    assert restrict(of(tmp_path / "none")) == []


def test_a_group_gets_the_archive_and_loses_it(old: Path) -> None:
    group = str(os.getgid())
    assert f"group {group} may now read {old / 'archive'}" in restrict(of(old, group))
    day = old / "archive" / "date=2026-01-01"
    assert mode(old) == 0o711
    assert mode(day) == mode(old / "archive") == 0o2750
    assert mode(day / "a.parquet") == 0o640
    assert mode(old / "redis") == 0o700
    assert restrict(of(old, group)) == []
    restrict(of(old))
    assert mode(old) == mode(old / "archive") & 0o777 == 0o700


def test_an_archive_that_is_not_there_yet_is_made_for_the_group(tmp_path: Path) -> None:
    restrict(of(tmp_path, str(os.getgid())))
    assert mode(tmp_path / "archive") == 0o2750


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data.group = 'no-such-group'"):
        group_id("no-such-group")
    assert group_id("1234") == 1234


def test_the_umask_of_programs(tmp_path: Path) -> None:
    keep_private()
    assert os.umask(0) == PRIVATE
    share_archive(of(tmp_path))
    assert os.umask(0) == PRIVATE
    share_archive(of(tmp_path, "1234"))
    assert os.umask(0) == SHARED
