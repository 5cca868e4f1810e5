"""Verifies a backup: the checksum of every file, and that the table can be opened."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from cli.backup.file_copy import checksum
from cli.backup.manifest import ARCHIVE, FileOf, Manifest
from telemetry.archive.table import READ_ERRORS, Archive, in_one_line

Inode = tuple[int, int]


def faults(
    folder: Path, said: Manifest, told: Callable[[int], None], done: dict[Inode, FileOf] | None = None
) -> list[str]:
    """Faults of a backup, none if it is complete. `done` caches checksums of files that backups share."""
    known = {} if done is None else done
    real = folder.resolve()
    found = [fault for path, file in said.files.items() if (fault := _fault(real / path, file, told, known))]
    return found or _table_faults(folder / ARCHIVE, said)


def _fault(path: Path, said: FileOf, told: Callable[[int], None], known: dict[Inode, FileOf]) -> str | None:
    try:
        found = path.stat()
        if path.resolve() != path or not stat.S_ISREG(found.st_mode):
            return f"{path}: it is a link or no regular file"
        inode = (found.st_dev, found.st_ino)
        if inode in known:
            told(said.size_bytes)
        else:
            known[inode] = checksum(path, told)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if known[inode] == said:
        return None
    size = known[inode].size_bytes
    return (
        f"{path}: {'its content' if size == said.size_bytes else f'its size, {size} bytes,'} differs from the manifest"
    )


def _table_faults(root: Path, said: Manifest) -> list[str]:
    if said.archive is None:
        return []
    archive = Archive(root)
    try:
        table = archive.open_existing()
        if table is None:
            return [f"{root}: there is no table"]
        live = archive.live(table)
    except READ_ERRORS as error:
        return [f"{root}: {in_one_line(error)}"]
    is_ = (table.version(), len(live), sum(file.rows or 0 for file in live))
    should = (said.archive.version, said.archive.files, said.archive.records)
    if is_ != should:
        return [f"{root}: version, files and records are {is_}, and were {should}"]
    return [
        f"{file.path}: it is in the table, and not in the manifest"
        for file in live
        if not _is_named(root, file.path, said)
    ]


def _is_named(root: Path, path: str, said: Manifest) -> bool:
    return f"{ARCHIVE}/{Path(path).relative_to(root)}" in said.files
