"""A real file system of some megabytes, which tests fill completely."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

BLOCKS = (2**20, 4_096, 1)


class SmallDisk:
    """A mounted file system. A filled one stays filled until `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        return shutil.disk_usage(self.path).free

    def leave(self, free_bytes: int) -> None:
        """Fill or empty the disk until about this number of bytes is free."""
        self.release()
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free - free_bytes)

    def fill(self) -> None:
        """Write until not one byte more fits."""
        with self._ballast.open("ab", buffering=0) as file:
            for block in BLOCKS:
                with contextlib.suppress(OSError):
                    while file.write(bytes(block)) == block:
                        pass

    def release(self) -> None:
        """Give back what was filled."""
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A file system of its own at `folder`; skips the test where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"cannot mount a small disk: {error}")
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
