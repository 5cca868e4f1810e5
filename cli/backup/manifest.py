"""The manifest of a backup, written last."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from telemetry.model.errors import StoreError
from telemetry.system.fsync import fsync

LAYOUT = 1
NAME = "manifest.json"
ARCHIVE, REDIS = "archive", "redis"
DUMP = f"{REDIS}/dump.rdb"


class FileOf(Struct, frozen=True):
    """A file of a backup. A file that the previous backup contains is a hard link to it."""

    size_bytes: int
    sha256: str


class ShardOf(Struct, frozen=True):
    """A shard's state: valid save numbers for the end of the archive, and approximate count of unsaved records."""

    shard: int
    store_id: str
    commits: list[str]
    unsaved_records: int


class StoreOf(Struct, frozen=True):
    """Redis: the server's kind, "redis" or "valkey" (neither reads the other's files), and its shards."""

    kind: str
    version: str
    layout: int
    shards: list[ShardOf]


class ArchiveOf(Struct, frozen=True):
    """The archive: the copied version of the table, and its contents."""

    version: int
    layout: int
    files: int
    records: int


class Manifest(Struct, frozen=True):
    """A whole backup. `made_ms` is the moment that it shows; `archive` is null if nothing had been saved yet."""

    layout: int
    whimbrel: str
    made_ms: int
    took_s: float
    size_bytes: int
    new_bytes: int
    store: StoreOf
    archive: ArchiveOf | None
    files: dict[str, FileOf]

    @property
    def unsaved_records(self) -> int:
        return sum(shard.unsaved_records for shard in self.store.shards)


def folder_name(made_ms: int) -> str:
    """The name of a backup of that moment, without a colon, which some file systems reject."""
    return datetime.fromtimestamp(made_ms / 1_000, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3] + "Z"


def write(folder: Path, manifest: Manifest) -> None:
    """Have it on disk."""
    path = folder / NAME
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    fsync(path)


def read(folder: Path) -> Manifest:
    """Raises `StoreError` if this release cannot read it, or if it names a file outside the backup's two folders."""
    found = _decoded(folder)
    for path in found.files:
        if not _is_inside(path):
            raise StoreError(
                f"cannot use the backup {folder}: its manifest names {path!r}, which is not a file of a backup; "
                "the manifest has been changed: use another backup"
            )
    return found


def _is_inside(path: str) -> bool:
    """Whether a path names Redis's copy or a file below `archive/`, without detours."""
    parts = path.split("/")
    is_plain = not any(part in ("", ".", "..") or "\0" in part for part in parts)
    return path == DUMP or (is_plain and parts[0] == ARCHIVE and len(parts) > 1)


def _decoded(folder: Path) -> Manifest:
    try:
        text = (folder / NAME).read_bytes()
        layout = msgspec.json.decode(text, type=_Layout).layout
        if layout > LAYOUT:
            raise StoreError(
                f"cannot read the backup {folder}: its layout is {layout}, this release of Whimbrel knows {LAYOUT}: "
                "use the release that made it, or a newer one"
            )
        return msgspec.json.decode(text, type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"cannot read the backup {folder}: {error}") from error


class _Layout(Struct):
    layout: int
