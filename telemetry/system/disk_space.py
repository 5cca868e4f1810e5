"""How much room the disks have that the box writes to, and how much it wants there.

With `appendfsync always` Redis exits when it can't write its AOF, so records are refused well before. What
is kept free serves what must go on meanwhile: saves, which then let Redis shrink, and Redis's own rewrite
of its AOF.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from telemetry.config.settings import Settings

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
WITH_DECIMAL = UNITS.index("GiB")
"""First unit of which a size always has a decimal."""

FEW = 10
"""A size below this has a decimal in smaller units, too."""


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


def in_words(size_bytes: float) -> str:
    """A size as people read it, with its unit, 1,024 of one making the next: `10.6 GiB`.

    Bytes are whole; other units have one decimal below 10 and from GiB on. `api/static/page/units.js` rounds in the
    same way, so that a limit is one figure wherever it is shown.
    """
    step = 0
    while step < len(UNITS) - 1 and _rounded(size_bytes / 1024**step, step) >= 1024:
        step += 1
    size = size_bytes / 1024**step
    return f"{_rounded(size, step):.{_decimals(size, step)}f} {UNITS[step]}"


def _rounded(size: float, step: int) -> float:
    """Halves go up, as in JavaScript; Python's own rounding takes them to the even neighbour."""
    scale = 10.0 ** _decimals(size, step)
    return float(math.floor(size * scale + 0.5) / scale)


def _decimals(size: float, step: int) -> int:
    return 1 if step >= WITH_DECIMAL or (step > 0 and size < FEW) else 0
