"""Free space of the disks with the box's data, and the space that must stay free.

With `appendfsync always` Redis exits when it cannot write its AOF, so records are rejected well before that. The space
kept free serves saves, which let Redis shrink, and Redis's rewrite of its AOF.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from telemetry.config.settings import Settings

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
WITH_DECIMAL = UNITS.index("GiB")
"""First unit in which a size always has a decimal."""

FEW = 10
"""Below this number a size also has a decimal in smaller units."""


class Usage(NamedTuple):
    """Total and free space of a disk, bytes."""

    total: int
    free: int


class Room(NamedTuple):
    """The growing folders, and the minimum free space of their disks, bytes; 0 = no minimum."""

    folders: tuple[Path, ...] = ()
    min_free_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Room:
        """The folders and minimum of a box. Each folder may be on its own disk."""
        folders = (settings.data_dir, settings.archive_dir, settings.redis_dir)
        return cls(folders, settings.data.min_free_bytes)

    @property
    def resume_bytes(self) -> int:
        """Free space at which a full disk counts as usable again, bytes.

        It is a quarter above the minimum: one save or one AOF rewrite moves the free space by some hundred MB, and
        without a margin a box at the minimum would alternate between rejecting and accepting.
        """
        return self.min_free_bytes * 5 // 4

    def fullest(self) -> Usage:
        """The disk with the least free space. Raises `OSError` if a disk cannot be read."""
        disks = (shutil.disk_usage(existing(folder)) for folder in self.folders)
        return min((Usage(disk.total, disk.free) for disk in disks), key=lambda usage: usage.free)

    def is_short(self, was_short: bool = False) -> bool:
        """True if a disk has too little free space; raises as `fullest`."""
        wanted = self.resume_bytes if was_short else self.min_free_bytes
        return wanted > 0 and self.fullest().free < wanted


def existing(folder: Path) -> Path:
    """The folder, or its first parent that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def in_words(size_bytes: float) -> str:
    """Format a size in binary units (1 KiB = 1,024 bytes): `10.6 GiB`.

    Bytes are whole numbers; other units have one decimal below 10 and from GiB on. `api/static/page/units.js` rounds
    the same way, so that a limit has the same figure everywhere.
    """
    step = 0
    while step < len(UNITS) - 1 and _rounded(size_bytes / 1024**step, step) >= 1024:
        step += 1
    size = size_bytes / 1024**step
    return f"{_rounded(size, step):.{_decimals(size, step)}f} {UNITS[step]}"


def _rounded(size: float, step: int) -> float:
    """Round half up, as JavaScript does; Python's `round` rounds half to even."""
    scale = 10.0 ** _decimals(size, step)
    return float(math.floor(size * scale + 0.5) / scale)


def _decimals(size: float, step: int) -> int:
    return 1 if step >= WITH_DECIMAL or (step > 0 and size < FEW) else 0
