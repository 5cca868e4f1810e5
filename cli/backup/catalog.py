"""The backups in a folder: which are whole, which were broken off, and how long they stay."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cli.backup import manifest
from telemetry.model.errors import StoreError
from telemetry.system.fsync import fsync, make_folder

PART, GONE = ".part", ".gone"
LOCK = "lock"


def backups(into: Path) -> list[Path]:
    """The whole ones, the oldest first."""
    if not into.is_dir():
        return []
    return sorted(path for path in into.iterdir() if not is_broken_off(path) and (path / manifest.NAME).is_file())


def is_broken_off(path: Path) -> bool:
    """Whether it was being made, or removed."""
    return path.name.endswith((PART, GONE))


@contextlib.contextmanager
def locked(into: Path) -> Iterator[None]:
    """Make the folder if need be, and keep others from making and removing backups there. Raises `StoreError`."""
    make_folder(into, 0o700)
    descriptor = os.open(into / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"cannot use {into}: another backup there is under way") from None
    else:
        yield
    finally:
        os.close(descriptor)


def clear(into: Path) -> list[Path]:
    """Remove what was broken off. Its lock must be held. Returns what is gone."""
    left = [path for path in into.iterdir() if is_broken_off(path)]
    for path in left:
        shutil.rmtree(path)
    return left


def remove_old(into: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` whole ones. Its lock must be held. Returns those that are gone."""
    gone = backups(into)[:-keep]
    for path in gone:
        doomed = path.rename(path.with_name(path.name + GONE))
        fsync(into)
        shutil.rmtree(doomed)
    return gone


def choose(folder: Path, at_ms: int | None) -> Path:
    """The newest backup that is not younger than `at_ms`; `folder` may be one. Raises `StoreError` if none is so."""
    is_one = (folder / manifest.NAME).is_file() and not is_broken_off(folder)
    found = [folder] if is_one else backups(folder)
    fits = [path for path in found if at_ms is None or manifest.read(path).made_ms <= at_ms]
    if fits:
        return fits[-1]
    if found:
        raise StoreError(f"cannot restore from {folder}: its oldest backup is {found[0].name}, after the time given")
    raise StoreError(f"cannot restore from {folder}: there is no whole backup in it")
