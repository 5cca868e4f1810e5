"""A backup put back into a data folder, whole or one of its two halves.

The order ensures that an interrupted restore is never mistaken for a box: first data files, which no reader sees; then
Redis's file, by one rename; last the table's log, by another. A Redis without its archive saves nothing and reports it;
in the other order, unsaved records would be lost silently.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cli.backup.file_copy import Told, make_folders, place, sync_folders
from cli.backup.manifest import ARCHIVE, DUMP, REDIS, Manifest
from telemetry.archive.table import LOG
from telemetry.model.errors import ConfigError
from telemetry.system.fsync import fsync, make_folder
from telemetry.system.runtime_dir import AOF, KIND, REDIS_LOCK, RESTORING, UP_LOCK

BASE = "appendonly.aof.1.base.rdb"
AOF_MANIFEST = "appendonly.aof.manifest"

HALVES = (ARCHIVE, REDIS)


class Target(NamedTuple):
    """Destinations: the folders of the data, the archive and the Redis server."""

    data: Path
    archive: Path
    redis: Path
    is_own_redis: bool


@contextlib.contextmanager
def locked(target: Target) -> Iterator[None]:
    """Keep the box from starting meanwhile. Raises `ConfigError` if it runs."""
    make_folder(target.data, 0o700)
    with contextlib.ExitStack() as held:
        _lock(held, target.data / UP_LOCK, f"Whimbrel is running on {target.data}")
        if target.is_own_redis:
            make_folder(target.redis, 0o700)
            _lock(held, target.redis / REDIS_LOCK, f"the Redis of {target.data} is running")
        yield


def _lock(held: contextlib.ExitStack, path: Path, why: str) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    held.callback(os.close, file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"cannot restore: {why}; stop it first") from None


def in_the_way(target: Target, halves: Iterable[str]) -> list[Path]:
    """Existing files of the parts to restore; an interrupted restore leaves none."""
    if (target.data / RESTORING).exists():
        return []
    found = []
    if ARCHIVE in halves and target.archive.is_dir() and any(target.archive.iterdir()):
        found.append(target.archive)
    if REDIS in halves and (target.redis / AOF).exists():
        found.append(target.redis / AOF)
    return found


def move_aside(path: Path, name: str) -> Path:
    """Rename existing files out of the way. Raises `OSError`, for example for a mount point."""
    moved = path.rename(path.with_name(f"{path.name}.{name}"))
    fsync(path.parent)
    return moved


def restore(folder: Path, said: Manifest, target: Target, halves: Iterable[str], told: Told) -> None:
    """Put back the halves that are named, `archive` and `redis`, whose places are empty and locked."""
    mark = target.data / RESTORING
    mark.touch()
    fsync(target.data)
    if ARCHIVE in halves:
        make_folder(target.archive, 0o700)
        _put_archive(folder, said, target.archive, told)
    if REDIS in halves:
        _put_redis(folder, said, target, told)
    if ARCHIVE in halves and (target.archive / f"{LOG}.part").exists():
        (target.archive / f"{LOG}.part").rename(target.archive / LOG)
        fsync(target.archive)
    mark.unlink()
    fsync(target.data)


def _put_archive(folder: Path, said: Manifest, root: Path, told: Told) -> None:
    """All of the archive, its log under another name."""
    for left in (root / f"{LOG}.part", root / LOG):
        shutil.rmtree(left, ignore_errors=True)
    paths = {path: _renamed(path.removeprefix(f"{ARCHIVE}/")) for path in said.files if path.startswith(f"{ARCHIVE}/")}
    folders = make_folders(root, paths.values())
    for path, new in paths.items():
        (root / new).unlink(missing_ok=True)
        place(folder / path, root / new, told)
    sync_folders(folders)


def _renamed(path: str) -> str:
    return path.replace(f"{LOG}/", f"{LOG}.part/", 1) if path.startswith(f"{LOG}/") else path


def _put_redis(folder: Path, said: Manifest, target: Target, told: Told) -> None:
    """The copy as the base of an AOF, which a server with `appendonly yes` reads when it starts."""
    make_folder(target.redis, 0o700)
    part = target.redis / f"{AOF}.part"
    for left in (part, target.redis / AOF):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(mode=0o700)
    _copy(folder / DUMP, part / BASE, told)
    (part / AOF_MANIFEST).write_text(f"file {BASE} seq 1 type b\n")
    fsync(part / AOF_MANIFEST)
    fsync(part)
    if target.is_own_redis:
        (target.redis / KIND).write_text(said.store.kind)
        fsync(target.redis / KIND)
    part.rename(target.redis / AOF)
    fsync(target.redis)


def _copy(source: Path, target: Path, told: Callable[[int], None]) -> None:
    """Copied, never linked: Redis changes its own files."""
    shutil.copyfile(source, target)
    fsync(target)
    told(target.stat().st_size)
