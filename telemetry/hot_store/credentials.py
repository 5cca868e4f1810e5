"""Who a program is to Redis: each has a user of its own, which may do what that program needs (redis_acl.py).

    <data.dir>/redis/passwords/<role>   the password of Whimbrel's own Redis for each role, made at its first start,
                                        readable by its owner alone; never in a command line, a log or the environment

For a Redis that others run `redis.user` and `redis.password` say it.
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
"""The programs of the Procfile that ask Redis, and people's commands."""

PROGRAMS = {"compactor": "scheduler"}
"""Programs that are called otherwise than their role."""

PLACE = "{role}"
"""What stands in `redis.user` and `redis.password` for the role."""

_acting = [ADMIN]


def act_as(program: str) -> None:
    """Set for this process, and those that it forks, which program it is. Commands are `ADMIN`."""
    _acting[:] = [PROGRAMS.get(program, program)]


def user(role: str) -> str:
    """The name of a role's user."""
    return f"whimbrel-{role}"


def password_file(settings: Settings, role: str) -> Path:
    """Where the password of a role is, for Whimbrel's own Redis."""
    return settings.redis_dir / "passwords" / role


class Login(CredentialProvider):
    """Name and password, looked up at each connection, so that a new password needs no new start."""

    def __init__(self, settings: Settings, role: str, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._role = role
        self._environ = environ

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """(user, password), or (password) where no user is named. Raises `redis.ConnectionError` if there is none."""
        found = self._settings.redis
        if not found.url:
            return user(self._role), self._own()
        try:
            password = value_of(found.password.replace(PLACE, self._role), self._environ)
        except ConfigError as error:
            raise redis.ConnectionError(str(error)) from None
        return (found.user.replace(PLACE, self._role), password) if found.user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; a small file is read faster than a thread is asked to."""
        return self.get_credentials()

    def _own(self) -> str:
        path = password_file(self._settings, self._role)
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError:
            raise redis.ConnectionError(f"there is no {path} yet; whimbrel redis makes it when it starts") from None
        except (OSError, UnicodeDecodeError) as error:
            raise redis.ConnectionError(f"cannot read {path}: {error}") from None


def login(settings: Settings) -> Login | None:
    """How this process logs in; None if the URL says it, or nobody asks."""
    asked = not settings.redis.url or settings.redis.user or settings.redis.password
    return Login(settings, _acting[0]) if asked else None
