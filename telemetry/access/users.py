"""Users of the page, their roles, and their sessions.

A role is a set of the scopes that keys have (`ROLES`); no other code depends on roles. A session is 256 random bits in
a cookie. Only their SHA-256 is stored, as with keys. The CSRF token is an HMAC of them and is not stored.

This file uses no clock, randomness, socket, file or Redis.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from telemetry.model import api_keys
from telemetry.model.api_keys import ADMIN, READ, SQL, Binding, Caller
from telemetry.model.errors import WhimbrelError

ROLES: dict[str, tuple[str, ...]] = {
    "viewer": (READ,),
    "dispatcher": (READ, SQL),
    "admin": (ADMIN,),
}
"""Role → scopes. A new scope must be added to its roles here."""

MAX_USERS = 1_000
MAX_SESSIONS_OF_USER = 20
"""Maximum number of sessions of a user; a further sign-in ends the oldest."""

SESSION_BYTES = 32
SHOWN_ID_CHARACTERS = 12
"""Number of characters of a session's id that commands print and accept."""

KEY_ID = "user:"
"""Prefix of a user's name in `Caller.key_id`."""

MAX_NAME_CHARACTERS = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,99}", re.ASCII)
_SESSION = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class InvalidUser(WhimbrelError):
    """The requested user or change is not valid."""


class User(Struct, frozen=True, omit_defaults=True):
    """A user as stored. `password` is the text of passwords.py; empty: can sign in only through the OIDC provider."""

    name: str
    role: str
    created_s: int
    password: str = ""
    devices: tuple[str, ...] = ()
    prefix: str = ""
    is_disabled: bool = False

    @property
    def binding(self) -> Binding:
        """The devices that this user may see."""
        return Binding(frozenset(self.devices), self.prefix)


class Session(Struct, frozen=True, omit_defaults=True):
    """A session as stored under the SHA-256 of its cookie; times are s since epoch.

    `role` is set if an OIDC provider authenticated the user; then no user needs to be stored. Otherwise the user's
    applies.
    """

    user: str
    created_s: int
    expires_s: int
    address: str = ""
    role: str = ""


def make_user(name: str, role: str, now_s: int, devices: tuple[str, ...] = (), prefix: str = "") -> User:
    """A new user without a password. Raises `InvalidUser`."""
    if not _NAME.fullmatch(name):
        raise InvalidUser(
            f"cannot create user {name!r}: a name has 1 to {MAX_NAME_CHARACTERS} characters of a-z 0-9 . _ @ + -"
        )
    require_role(role)
    try:
        api_keys.require_valid_binding(ROLES[role], devices, prefix)
    except api_keys.InvalidKey as error:
        raise InvalidUser(str(error).replace("this key", f"user {name!r}")) from None
    return User(name, role, now_s, devices=tuple(sorted(set(devices))), prefix=prefix)


def with_role(user: User, role: str) -> User:
    """The user with another role. Raises `InvalidUser` if the user is bound to devices and the role cannot be."""
    return msgspec.structs.replace(
        make_user(user.name, role, user.created_s, user.devices, user.prefix),
        password=user.password,
        is_disabled=user.is_disabled,
    )


def require_role(role: str) -> None:
    """Raises `InvalidUser` for an unknown role."""
    if role not in ROLES:
        raise InvalidUser(f"cannot give the role {role!r}: it does not exist; roles are {', '.join(ROLES)}")


def new_session(random: Callable[[int], bytes]) -> str:
    """The text of a new session cookie."""
    return base64.urlsafe_b64encode(random(SESSION_BYTES)).decode().rstrip("=")


def session_id(text: str) -> str:
    """The session id of a cookie, in hex; empty for a text that is not a session's."""
    return hashlib.sha256(text.encode()).hexdigest() if _SESSION.fullmatch(text) else ""


def csrf_token(text: str) -> str:
    """The token that requests of this session must carry in `X-CSRF-Token` for changes."""
    digest = hmac.digest(text.encode(), b"whimbrel: csrf token of a session", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def caller_of_session(session: Session, at: str, user: User | None) -> Caller | None:
    """The caller of the session with id `at`; None if its user is unknown, disabled or has no role."""
    role = session.role or (user.role if user else "")
    if role not in ROLES or (user is not None and user.is_disabled):
        return None
    binding = api_keys.EVERY_DEVICE if user is None else user.binding
    return Caller(KEY_ID + session.user, frozenset(ROLES[role]), binding, "", session.expires_s, session=at)
