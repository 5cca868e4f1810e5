"""Permissions of the data folder: private to its owner, except an archive that `data.group` may read.

Programs create files by umask: `PRIVATE` everywhere, `SHARED` for the archive if a group may read it. Folders have
mode 0700, so that file modes matter in the archive only. There the setgid bit gives each new folder and file the group.

`restrict` corrects modes left by an earlier release or another setting.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from telemetry.config.settings import Settings
from telemetry.model.errors import ConfigError
from telemetry.system.fsync import make_folder

PRIVATE, SHARED = 0o077, 0o027
"""umasks"""

OWN_FOLDER, OWN_FILE = 0o700, 0o600
ENTERED_FOLDER = 0o711
"""Mode of the data folder if a group may read the archive in it: others may enter it, but not list it."""

SHARED_FOLDER, SHARED_FILE = 0o2750, 0o640

OURS = ("archive", "audit", "courier", "imports", "redis", "run", "tmp", "up.lock", "restoring")
"""Prefixes of the names in a data folder that belong to Whimbrel; other files are left alone."""


def keep_private() -> None:
    """Make this process create files and folders for its owner only."""
    os.umask(PRIVATE)


def share_archive(settings: Settings) -> None:
    """The same for a process that writes the archive: `data.group`, if set, may read its files."""
    os.umask(SHARED if settings.data.group else PRIVATE)


def restrict(settings: Settings) -> list[str]:
    """Remove permissions of others, and give `data.group` its own. Returns the changes, one sentence each.

    Raises `ConfigError` if the group cannot be given access to the archive.
    """
    folder, group = settings.data_dir, settings.data.group
    if not folder.is_dir():
        return []
    for path in _own_entries(folder, settings.archive_dir if group else None):
        _set_mode(path, _mode(path) & (OWN_FOLDER if path.is_dir() else OWN_FILE))
    before, wanted = _mode(folder), ENTERED_FOLDER if group else OWN_FOLDER
    changes = []
    is_ours = before & stat.S_ISVTX == 0  # a folder like /tmp is shared by all users
    if is_ours and _set_mode(folder, wanted) and before & 0o077 & ~wanted:
        changes.append(f"{folder} was open to others, mode {before:04o}; its mode is {wanted:04o} now")
    if group and _share(settings.archive_dir, group_id(group)):
        changes.append(f"group {group} may now read {settings.archive_dir}")
    return changes


def group_id(name: str) -> int:
    """Number of a group by its name. Raises `ConfigError` if it does not exist."""
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"cannot use data.group = {name!r}: no such group; create it or correct the setting"
        ) from None


def _own_entries(folder: Path, shared: Path | None) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(OURS) and path != shared and not path.is_symlink():
            yield path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _set_mode(path: Path, mode: int) -> bool:
    """Change a mode. False if it is set already, the file is not ours, or the mount is read-only."""
    status = path.stat()
    if stat.S_IMODE(status.st_mode) == mode or status.st_uid not in (os.getuid(), os.geteuid()):
        return False
    try:
        path.chmod(mode)
    except OSError:
        return False
    return True


def _share(archive: Path, gid: int) -> bool:
    """Give a group access to the archive. Returns True if anything changed."""
    make_folder(archive, OWN_FOLDER)
    status = archive.stat()
    if (status.st_gid, stat.S_IMODE(status.st_mode)) == (gid, SHARED_FOLDER):
        return False
    try:
        for path in archive.rglob("*"):
            if not path.is_symlink():
                _give(path, gid)
        _give(archive, gid)  # last: after a crash the next start begins again
    except OSError as error:
        raise ConfigError(
            f"cannot let data.group = {gid} read {archive}: {error.strerror}; "
            "add the user that runs Whimbrel to that group"
        ) from None
    return True


def _give(path: Path, gid: int) -> None:
    try:
        os.chown(path, -1, gid)
        path.chmod(SHARED_FOLDER if path.is_dir() else SHARED_FILE)  # after chown, which clears the setgid bit
    except FileNotFoundError:
        return  # deleted meanwhile
