"""How much room the disks have that the box writes to, and how much it wants there.

With `appendfsync always` Redis exits when it can't write its AOF, so records are refused well before. What
is kept free serves what must go on meanwhile: saves, which then let Redis shrink, and Redis's own rewrite
of its AOF.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from telemetry.settings import Settings


class Usage(NamedTuple):
    """A disk, in bytes."""

    total: int
    free: int


class Room(NamedTuple):
    """The folders that grow, and the bytes that each one's disk is to have free; 0 asks for nothing."""

    folders: tuple[Path, ...] = ()
    min_free_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Room:
        """Of a box. Each folder may lie on a disk of its own."""
        folders = (settings.data_dir, settings.archive_dir, settings.redis_dir)
        return cls(folders, settings.data.min_free_bytes)

    @property
    def resume_bytes(self) -> int:
        """Free bytes from which on a disk that was short is so no more.

        A quarter above the mark: one save or one rewrite of the AOF moves the free space by some
        hundred MB, and a box right at the mark would refuse and take by turns.
        """
        return self.min_free_bytes * 5 // 4

    def fullest(self) -> Usage:
        """The disk with the least room. Raises `OSError` if one can't be looked at."""
        found = (shutil.disk_usage(existing(folder)) for folder in self.folders)
        return min((Usage(one.total, one.free) for one in found), key=lambda usage: usage.free)

    def is_short(self, was_short: bool = False) -> bool:
        """Whether there is too little room now; raises as `fullest`."""
        wanted = self.resume_bytes if was_short else self.min_free_bytes
        return wanted > 0 and self.fullest().free < wanted


def existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there already."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def in_words(size_bytes: int) -> str:
    """A size as people write it, with its unit."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
