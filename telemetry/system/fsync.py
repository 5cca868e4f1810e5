"""Files and folders that must survive a power cut: syncs both a file's bytes and its name in its folder."""

from __future__ import annotations

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Sync a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and its missing parents, and sync them to disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode, exist_ok=True)
        fsync(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically and sync it; only its owner can read it, from its first byte on."""
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    fsync(path)
    fsync(path.parent)
