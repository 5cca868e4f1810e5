"""The attack: another user of the machine walks through the data folder and reads what was stored."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import Box

pytestmark = pytest.mark.slow

NOBODY, ANALYSTS = 65_534, 54_321
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own keep others out by themselves."""
    found = Path(tempfile.mkdtemp(prefix="whimbrel-files-"))
    found.chmod(0o755)
    umask = os.umask(0o022)
    yield found
    os.umask(umask)
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def box(folder: Path) -> Iterator[Box]:
    """A box started with the usual umask, after a save, a merge, an import and a backup."""
    rows = folder / "rows.ndjson"
    rows.write_text('{"device_id": "van-8", "timestamp": "2026-11-01T10:00:00Z"}\n')
    with Box(folder, archive__quiet_seconds="1") as found:
        for number in range(2):
            found.http.post("/v1/records", json={"device_id": f"van-{number}"}).raise_for_status()
            succeeds(found, "drain")
        succeeds(found, "import", str(rows))
        succeeds(found, "compact")
        succeeds(found, "backup", str(folder / "backups"))
        found.http.post("/v1/records", json={"device_id": "van-7"}).raise_for_status()
        yield found


def succeeds(box: Box, *arguments: str) -> None:
    done = box.whimbrel(*arguments)
    assert done.returncode == 0, done.stderr


def open_to_others(root: Path) -> list[str]:
    """Everything below `root`, and itself, that its group or others have any right to."""
    found = [root, *root.rglob("*")]
    modes = {str(path.relative_to(root)): path.lstat().st_mode for path in found if not path.is_symlink()}
    return [f"{stat.filemode(mode)} {name}" for name, mode in modes.items() if mode & 0o077]


def readable(root: Path, group: int) -> list[str]:
    """Files and sockets below `root` that a user who has nothing but this group may read."""
    paths = [str(path) for path in (root, *root.rglob("*")) if not path.is_dir()]  # that user may not list them
    find = ["find", *paths, "-maxdepth", "0", "-readable"]
    done = subprocess.run(find, user=NOBODY, group=group, extra_groups=[], capture_output=True, text=True)
    return [str(Path(line).relative_to(root)) for line in done.stdout.splitlines()]


def test_all_of_the_data_folder_is_its_owners_alone(box: Box) -> None:
    names = {path.name for path in box.data.iterdir()}
    assert {"archive", "redis", "run", "tmp", "imports"} <= names
    assert open_to_others(box.data) == []


def test_a_backup_is_its_owners_alone(box: Box, folder: Path) -> None:
    assert open_to_others(folder / "backups") == []
    succeeds(box, "backup", "--verify", str(folder / "backups"))


def test_an_exported_file_follows_the_umask_of_its_user(box: Box, folder: Path) -> None:
    succeeds(box, "export", str(folder / "records.csv"))
    assert stat.S_IMODE((folder / "records.csv").stat().st_mode) == 0o644
    assert open_to_others(box.data) == []


@needs_root
def test_another_user_reads_nothing(box: Box, folder: Path) -> None:
    assert readable(folder / "rows.ndjson", NOBODY) == ["."], "the look works"
    assert readable(box.data, NOBODY) == readable(folder / "backups", NOBODY) == []


@needs_root
def test_a_group_reads_the_archive_alone_also_that_of_an_earlier_release(box: Box, folder: Path) -> None:
    box.stop()
    for path in (box.data, *box.data.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    box.environ["WHIMBREL__DATA__GROUP"] = str(ANALYSTS)
    box.start()
    box.http.post("/v1/records", json={"device_id": "van-9"}).raise_for_status()
    succeeds(box, "drain")
    assert readable(box.data, NOBODY) == []
    found = readable(box.data, ANALYSTS)
    assert {Path(path).parts[0] for path in found} == {"archive"}
    assert len(found) == sum(path.is_file() for path in (box.data / "archive").rglob("*"))
    assert not list((box.data / "archive").rglob("*.part"))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (box.data / "archive").rglob("*") if path.is_file()}
    assert modes == {0o640}, "the group cannot write"
    log = "".join(box.output)
    assert f"{box.data} was open to others" in log
    assert "group 54321 may now read" in log


@needs_root
def test_without_the_setting_the_group_reads_nothing_again(box: Box) -> None:
    box.stop()
    del box.environ["WHIMBREL__DATA__GROUP"]
    box.start()
    assert readable(box.data, ANALYSTS) == []
