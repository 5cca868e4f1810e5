"""What `whimbrel doctor` says of who may read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.doctor.permissions import readers
from telemetry.config.loader import load


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own keep others out by themselves."""
    found = Path(tempfile.mkdtemp(prefix="whimbrel-readers-"))
    found.chmod(0o755)
    (found / "data").mkdir(mode=0o755)
    yield found
    shutil.rmtree(found)


def texts(folder: Path, settings: str = "", **environ: str) -> list[str]:
    file = folder / "config.toml"
    file.touch(mode=0o600)
    file.write_text('[data]\ndir = "data"\n' + settings)
    return [finding.text for finding in readers(load(file, environ)) if finding.level != "ok"]


def test_nothing_is_open(folder: Path) -> None:
    assert texts(folder) == []
    file = folder / "config.toml"
    assert [finding.level for finding in readers(load(file, {}))] == ["ok"]


def test_an_open_file_is_found_unless_a_folder_above_is_shut(folder: Path) -> None:
    aof = folder / "data" / "redis" / "appendonlydir"
    aof.mkdir(parents=True)
    for path in (aof.parent, aof):
        path.chmod(0o711)
    (aof / "a.aof").touch()
    (aof / "a.aof").chmod(0o644)
    [text] = texts(folder)
    assert "every user may read 1 files" in text
    assert "a.aof" in text
    aof.parent.chmod(0o700)
    assert texts(folder) == []


def test_a_plain_secret_in_open_settings(folder: Path) -> None:
    secret = '[redis]\nurl = "redis://h"\nuser = "me"\npassword = "hunter2"\n'
    assert texts(folder, secret) == []
    (folder / "config.toml").chmod(0o644)
    [text] = texts(folder, secret)
    assert text.endswith("and with it redis.password")
    assert "hunter2" not in text
    assert texts(folder, secret.replace("hunter2", "env:PASSWORD")) == []


def test_a_secret_in_an_open_file_and_an_open_key_of_tls(folder: Path) -> None:
    for name in ("password", "key.pem"):
        (folder / name).touch()
        (folder / name).chmod(0o644)
    found = texts(
        folder,
        f'[redis]\nurl = "redis://h"\nuser = "me"\npassword = "file:{folder}/password"\n'
        '[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n',
    )
    assert [text.rpartition("/")[2] for text in found] == ["key.pem", "password"]
