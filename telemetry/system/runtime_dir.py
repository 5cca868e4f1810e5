"""Where the sockets of a data folder's programs are, and which servers may hold its records.

All of it is plain, so that `whimbrel up`, which runs for months and asks Redis nothing, need not load its client.
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
"""In the data folder, held by `whimbrel up`."""

RESTORING = "restoring"
"""In the data folder while a restore is under way, or since one was broken off: nothing may start then."""

AOF, KIND, REDIS_LOCK = "appendonlydir", "kind", "lock"
"""In the folder of our own Redis: its AOF, what kind of server wrote it, and what its server holds."""

OLDEST_REDIS = (7, 2)
OLDEST_VALKEY = (8,)


def runtime_dir(data_dir: Path) -> Path:
    """Folder for sockets: `run` in the data folder or, where that path won't do, a short private one.

    It won't do if it is too long, or has a character that redis-py stumbles over in a URL or in CLIENT INFO.
    """
    name = f"whimbrel-{os.getuid()}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    for folder in (data_dir / "run", Path(tempfile.gettempdir()) / name):
        is_short = len(os.fsencode(folder / "supervisor.sock")) <= MAX_SOCKET_PATH_BYTES
        if is_short and re.fullmatch(r"[A-Za-z0-9_./-]+", str(folder)):
            return folder
    return Path("/tmp") / name  # noqa: S108 - a folder of ours alone, whatever TMPDIR is


def make_private(folder: Path) -> None:
    """Create a folder that only we may enter. Raises `ConfigError` if it is somebody else's."""
    make_folder(folder, 0o700)
    found = folder.lstat()
    if found.st_uid != os.getuid():
        raise ConfigError(f"cannot use {folder}: it belongs to another user")
    folder.chmod(0o700)


def require_restored(data_dir: Path) -> None:
    """Raise `ConfigError` where a restore was begun and did not come to its end."""
    if (data_dir / RESTORING).exists():
        raise ConfigError(f"cannot start: a restore into {data_dir} was broken off; run `whimbrel restore` again")


REFUSED = "refused"
"""In the folder of sockets: why a program refuses to start on what is there, for `whimbrel up` to stop and say so."""


def refuse(data_dir: Path, why: str) -> None:
    """Leave word for `whimbrel up`, if there is one."""
    folder = runtime_dir(data_dir)
    if folder.is_dir():
        (folder / REFUSED).write_text(why)


def refusal(folder: Path) -> str:
    """What was left there, empty if nothing was."""
    try:
        return (folder / REFUSED).read_text()
    except FileNotFoundError:
        return ""


def version(text: str) -> tuple[int, ...]:
    """(7, 2, 4) of "7.2.4"."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
