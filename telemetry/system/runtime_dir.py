"""Paths of the sockets of a data folder's programs, and checks of the Redis server that may hold its records.

Imports no Redis client, because `whimbrel up` runs for months without one.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from telemetry.model.errors import ConfigError
from telemetry.system.fsync import make_folder

MAX_SOCKET_PATH_BYTES = 100
"""A unix socket's path has at most 107 bytes, and servers append a suffix while they create it."""

UP_LOCK = "up.lock"
"""Lock file in the data folder, held by `whimbrel up`."""

RESTORING = "restoring"
"""File in the data folder during a restore, and after one that was interrupted: no program may start then."""

AOF, KIND, REDIS_LOCK = "appendonlydir", "kind", "lock"
"""Files in the folder of the box's own Redis: its AOF, the kind of server that wrote it, and the server's lock."""

OLDEST_REDIS = (7, 2)
OLDEST_VALKEY = (8,)


def runtime_dir(data_dir: Path) -> Path:
    """Folder for sockets: `run` in the data folder or, if that path is not usable, a short private one.

    A path is not usable if it is too long, or has a character that redis-py cannot handle in a URL or in CLIENT INFO.
    """
    name = f"whimbrel-{os.getuid()}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    for folder in (data_dir / "run", Path(tempfile.gettempdir()) / name):
        is_short = len(os.fsencode(folder / "supervisor.sock")) <= MAX_SOCKET_PATH_BYTES
        if is_short and re.fullmatch(r"[A-Za-z0-9_./-]+", str(folder)):
            return folder
    return Path("/tmp") / name  # noqa: S108 - a folder of ours alone, whatever TMPDIR is


def make_private(folder: Path) -> None:
    """Create a folder that only this user may enter. Raises `ConfigError` if another user owns it."""
    make_folder(folder, 0o700)
    status = folder.lstat()
    if status.st_uid != os.getuid():
        raise ConfigError(f"cannot use {folder}: it belongs to another user")
    folder.chmod(0o700)


def require_restored(data_dir: Path) -> None:
    """Raise `ConfigError` if a restore was begun and not finished."""
    if (data_dir / RESTORING).exists():
        raise ConfigError(f"cannot start: a restore into {data_dir} was interrupted; run `whimbrel restore` again")


REFUSED = "refused"
"""File in the folder of sockets: why a program refuses to start, for `whimbrel up` to print and stop."""


def refuse(data_dir: Path, why: str) -> None:
    """Write the reason for `whimbrel up`, if it runs."""
    folder = runtime_dir(data_dir)
    if folder.is_dir():
        (folder / REFUSED).write_text(why)


def refusal(folder: Path) -> str:
    """The reason in the file, empty without one."""
    try:
        return (folder / REFUSED).read_text()
    except FileNotFoundError:
        return ""


def version(text: str) -> tuple[int, ...]:
    """Parse "7.2.4" to (7, 2, 4)."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
