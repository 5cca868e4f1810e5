"""Files into a backup and out of it: by a hard link where that can be, else copied; each with its checksum.

Only immutable files may be linked: files of the archive and of a backup.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from cli.backup.manifest import FileOf
from telemetry.system.fsync import fsync

PIECE_BYTES = 2**20

Told = Callable[[int], None]
"""Hears of each piece's bytes."""


def place(source: Path, target: Path, told: Told) -> FileOf:
    """Have `target` be `source`. It is on disk when this returns, but for its name."""
    if link(source, target):
        return checksum(target, told)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("xb") as written:
        for piece in _pieces(read):
            written.write(piece)
            digest.update(piece)
            size += len(piece)
            told(len(piece))
        written.flush()
        os.fsync(written.fileno())
    return FileOf(size, digest.hexdigest())


def link(source: Path, target: Path) -> bool:
    """Whether a hard link could be made: not to another disk, on some not at all. Raises `FileNotFoundError`."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def checksum(path: Path, told: Told) -> FileOf:
    """The size and the SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for piece in _pieces(file):
            digest.update(piece)
            size += len(piece)
            told(len(piece))
    return FileOf(size, digest.hexdigest())


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def make_folders(root: Path, paths: Iterable[str]) -> list[Path]:
    """Make the folders of some files below `root`, each before those in it. Returns them, `root` first."""
    found = {root}
    for path in paths:
        found.update(root.joinpath(*Path(path).parts[:depth]) for depth in range(1, len(Path(path).parts)))
    folders = sorted(found)
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return folders


def sync_folders(folders: Iterable[Path]) -> None:
    """Have the names in them on disk, the deepest first."""
    for folder in sorted(folders, reverse=True):
        fsync(folder)


def size_of(path: Path) -> int:
    """Its bytes; 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
