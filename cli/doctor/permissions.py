"""Checks of who else on this machine may read the data, the keys and the secrets."""

from __future__ import annotations

import grp
import pwd
import stat
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cli.doctor.finding import Finding, ok, warning
from telemetry.config.flat_settings import flat, holds_secret
from telemetry.config.settings import Settings
from telemetry.system.permissions import OURS, group_id
from telemetry.system.runtime_dir import runtime_dir

MOST_FILES = 20_000
"""Files looked at below each folder; of an archive with more, the first tell as much."""


def readers(settings: Settings) -> Iterator[Finding]:
    """Only the owner reads the data, and the group of `data.group` the archive."""
    found = [*_data(settings), *_secrets(settings)]
    yield from found or [ok("nobody but their owner reads the data, the sockets and the secrets")]


def _data(settings: Settings) -> Iterator[Finding]:
    group = group_id(settings.data.group) if settings.data.group else None
    folders = [settings.data_dir / name for name in OURS] + [runtime_dir(settings.data_dir)]
    for folder in dict.fromkeys(folders):
        yield from _open_below(folder, group if folder == settings.archive_dir else None)


def _open_below(folder: Path, allowed: int | None) -> Iterator[Finding]:
    open_files = [path for path in _files(folder) if _who_reads(path, allowed)]
    if open_files:
        first = open_files[0]
        yield warning(
            f"{_who_reads(first, allowed)} may read {len(open_files)} files below {folder}, like {first}",
            f"restart Whimbrel, which corrects its folders, or: chmod -R go= {folder}",
        )


def _files(folder: Path) -> Iterator[Path]:
    """Files, sockets and folders below one, and itself. Nothing of those that we may not look at ourselves."""
    with suppress(OSError):
        if folder.exists():
            yield folder
            for number, path in enumerate(folder.rglob("*")):
                if number >= MOST_FILES:
                    return
                yield path


def _secrets(settings: Settings) -> Iterator[Finding]:
    if settings.tls_paths is not None and _others_read(settings.tls_paths[1]):
        yield warning(f"every user may read the TLS key {settings.tls_paths[1]}", f"chmod o= {settings.tls_paths[1]}")
    file = Path(settings.file)
    if not settings.file or not file.is_file():
        return
    values = dict(flat(tomllib.loads(file.read_text(encoding="utf-8"))))
    plain = [name for name, value in values.items() if holds_secret(name, value)]
    if plain and _others_read(file):
        yield warning(
            f"every user may read {file}, and with it {', '.join(plain)}",
            f"chmod o= {file}, or write env:NAME or file:PATH in the place of the secret",
        )
    yield from _secret_files(values.values())


def _secret_files(values: Iterable[object]) -> Iterator[Finding]:
    for value in values:
        if isinstance(value, str) and value.startswith("file:"):
            path = Path(value.removeprefix("file:")).expanduser()
            if _others_read(path):
                yield warning(f"every user may read the secret in {path}", f"chmod o= {path}")


# Permissions -----------------------------------------------------------------------------------------


def _who_reads(path: Path, allowed: int | None) -> str:
    """Who else may read a file, enter a folder or use a socket: "every user", "group 12", or nobody: empty."""
    try:
        found = path.lstat()
    except OSError:
        return ""
    if stat.S_ISLNK(found.st_mode):
        return ""
    if _others_read(path):
        return "every user"
    if found.st_mode & stat.S_IRGRP and found.st_gid != allowed and _is_shared(found.st_gid, found.st_uid):
        return f"group {found.st_gid}" if _is_reached(path, stat.S_IXGRP | stat.S_IXOTH) else ""
    return ""


def _others_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH) and _is_reached(path, stat.S_IXOTH)
    except OSError:
        return False


def _is_reached(path: Path, right: int) -> bool:
    """Whether every folder above lets somebody pass."""
    return all(folder.stat().st_mode & right for folder in path.resolve().parents)


def _is_shared(gid: int, uid: int) -> bool:
    """Whether a group may have members besides the owner: most users have one of their own."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return True
    return gid != owner.pw_gid or bool(set(group.gr_mem) - {owner.pw_name})
