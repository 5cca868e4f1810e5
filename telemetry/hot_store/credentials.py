"""Login of programs to Redis: each has its own user with the permissions that it needs (redis_acl.py).

    <data.dir>/redis/passwords/<role>   the role's password for Whimbrel's own Redis, made at its first start, readable
                                        only by its owner; never in a command line, a log or the environment

For an external Redis `redis.user` and `redis.password` apply.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.credentials import CredentialProvider

from telemetry.config.secret_values import value_of
from telemetry.config.settings import Settings
from telemetry.model.errors import ConfigError

ADMIN = "admin"
ROLES = ("collector", "worker", "scheduler", "query", "api", "courier", ADMIN)
"""The programs of the Procfile that use Redis, and operators' commands."""

PROGRAMS = {"compactor": "scheduler"}
"""Programs whose role has another name."""

PLACE = "{role}"
"""Placeholder for the role in `redis.user` and `redis.password`."""

_acting = [ADMIN]


def act_as(program: str) -> None:
    """Set the role of this process and its children. Commands are `ADMIN`."""
    _acting[:] = [PROGRAMS.get(program, program)]


def user(role: str) -> str:
    """The name of a role's user."""
    return f"whimbrel-{role}"


def password_file(settings: Settings, role: str) -> Path:
    """File with the password of a role, for Whimbrel's own Redis."""
    return settings.redis_dir / "passwords" / role


class Login(CredentialProvider):
    """Name and password, looked up at each connection, so that a new password needs no restart."""

    def __init__(self, settings: Settings, role: str, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._role = role
        self._environ = environ

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """(user, password), or (password) without a user. Raises `redis.ConnectionError` if there is no password."""
        configured = self._settings.redis
        if not configured.url:
            return user(self._role), self._own()
        try:
            password = value_of(configured.password.replace(PLACE, self._role), self._environ)
        except ConfigError as error:
            raise redis.ConnectionError(str(error)) from None
        return (configured.user.replace(PLACE, self._role), password) if configured.user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; reading a small file is faster than delegating it to a thread."""
        return self.get_credentials()

    def _own(self) -> str:
        path = password_file(self._settings, self._role)
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError:
            raise redis.ConnectionError(f"{path} does not exist yet; whimbrel redis makes it when it starts") from None
        except (OSError, UnicodeDecodeError) as error:
            raise redis.ConnectionError(f"cannot read {path}: {error}") from None


def login(settings: Settings) -> Login | None:
    """Login of this process; None if the URL has it, or no user is configured."""
    is_needed = not settings.redis.url or settings.redis.user or settings.redis.password
    return Login(settings, _acting[0]) if is_needed else None
