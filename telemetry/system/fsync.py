"""Files and folders that a power cut must not take: a file's bytes, and its name in its folder, are synced each."""

from __future__ import annotations

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Have a file or a folder on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing, on disk when this returns."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode, exist_ok=True)
        fsync(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file by one that its owner alone can read from its first byte on, on disk when this returns."""
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    fsync(path)
    fsync(path.parent)
