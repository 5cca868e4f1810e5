"""The users of Redis: as `whimbrel redis` gives them to its own server, and as `whimbrel redis acl` prints them."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import redis

from telemetry.config.settings import Settings
from telemetry.coordination.redis_acl import rules
from telemetry.hot_store.credentials import PLACE, ROLES, Login, password_file, user
from telemetry.system.fsync import fsync
from telemetry.system.runtime_dir import make_private

PASSWORD_BYTES = 32

NOBODY = "user default off resetpass ~* &* +@all"
"""Nobody can be this user: it is off and has no password. But a server that starts reads its AOF as it, and with fewer
rights it would leave out every transaction that is in there, which is nearly all records."""


def write(settings: Settings, file: Path) -> None:
    """Write the ACL file of Whimbrel's own server, and the passwords that are missing. It holds their hashes alone."""
    make_private(settings.redis_dir / "passwords")
    found = {role: _password(password_file(settings, role)) for role in ROLES}
    lines = [NOBODY, *(f"user {user(role)} on {_hash(word)} {rules(role)}" for role, word in found.items())]
    _write_private(file, "".join(f"{line}\n" for line in lines))


def _password(path: Path) -> str:
    """The password there, or a new one. A power cut may have left an empty file."""
    found = path.read_text(encoding="ascii") if path.exists() else ""
    if not found:
        found = secrets.token_urlsafe(PASSWORD_BYTES)
        _write_private(path, found)
    return found


def _hash(password: str) -> str:
    return f"#{hashlib.sha256(password.encode()).hexdigest()}"


def _write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    fsync(new)
    new.replace(path)
    fsync(path.parent)


def to_paste(settings: Settings) -> Iterator[str]:
    """Lines for the ACL file of a Redis that others run, with the users and passwords of the settings.

    A password that can't be had here, or that is not set, is left to whoever pastes them.
    """
    yield "# Put these lines into the file that `aclfile` of redis.conf names, then ACL LOAD."
    yield f"# Settings: redis.user = {settings.redis.user or user(PLACE)!r}, redis.password = 'file:/PATH/{PLACE}'."
    yield "# `default` keeps its rights, though nobody can be it: as it the server reads its AOF when it starts."
    yield NOBODY
    for role in ROLES:
        name = (settings.redis.user or user(PLACE)).replace(PLACE, role)
        yield f"user {name} on {_hash_of_setting(settings, role)} {rules(role)}"


def _hash_of_setting(settings: Settings, role: str) -> str:
    if settings.redis.url and settings.redis.password:
        try:
            return _hash(Login(settings, role).get_credentials()[-1])
        except redis.ConnectionError:
            pass
    return f">PASSWORD_OF_{role.upper()}"
