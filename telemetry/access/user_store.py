"""Users and sessions in Redis. shared_state.py declares the Redis keys, users.py the stored types.

A change writes a new random version next to the entries. A removal does not, because a full Redis must accept it;
readers detect it by the number of entries. If Redis accepts only removals, a user can still be disabled and a session
ended: sessions are removed first.

A user or session that cannot be decoded is skipped (corruption.py).

Each function raises `StoreUnavailable` if Redis is not reachable, `BusyError` if it is at its memory limit.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
import redis

from telemetry.access.users import Session, User
from telemetry.coordination.shared_state import SESSIONS, SESSIONS_USED, USERS
from telemetry.hot_store import corruption
from telemetry.hot_store.response_errors import translated

VERSION = ":version"
"""Field with the version; user names and session ids have no colon."""

USED_PART = 1_000
"""Number of last uses written in one command."""


class Stamp(NamedTuple):
    """Changes whenever a user or a session changes."""

    users: tuple[bytes | None, int] = (None, 0)
    sessions: tuple[bytes | None, int] = (None, 0)


class People(NamedTuple):
    """All users by name, all sessions by id."""

    users: dict[str, User]
    sessions: dict[str, Session]


# Reading ---------------------------------------------------------------------------------------------


def people_since(client: redis.Redis, known: Stamp | None) -> tuple[Stamp, People | None]:
    """All users and sessions with their stamp; None for them if the stamp equals `known`."""
    pipe = client.pipeline(transaction=True)
    for key in (USERS, SESSIONS):
        pipe.hget(key, VERSION)
        pipe.hlen(key)
    users_version, users, sessions_version, sessions = translated(pipe.execute)
    if known == Stamp((users_version, users), (sessions_version, sessions)):
        return known, None
    return _read(client)


def _read(client: redis.Redis) -> tuple[Stamp, People]:
    pipe = client.pipeline(transaction=True)
    for key in (USERS, SESSIONS):
        pipe.hgetall(key)
    users, sessions = translated(pipe.execute)
    stamp = Stamp(*((entries.get(VERSION.encode()), len(entries)) for entries in (users, sessions)))
    return stamp, People(
        corruption.decoded("users", _entries(users), _decode_user),
        corruption.decoded("sessions", _entries(sessions), _decode_session),
    )


def _entries(fields: Mapping[bytes, bytes]) -> Iterable[tuple[bytes, bytes]]:
    return ((name, text) for name, text in fields.items() if name != VERSION.encode())


def people(client: redis.Redis) -> People:
    """All users and sessions."""
    return _read(client)[1]


def user(client: redis.Redis, name: str) -> User | None:
    """A user, None if unknown."""
    stored = translated(lambda: client.hget(USERS, name))
    return None if stored is None else _decode_user(stored)


def used(client: redis.Redis) -> dict[str, int]:
    """Session id → s since epoch of its last request."""
    return corruption.decoded("uses", translated(lambda: client.hgetall(SESSIONS_USED)).items(), int)


_decode_user = msgspec.json.Decoder(User).decode
_decode_session = msgspec.json.Decoder(Session).decode

# Changing --------------------------------------------------------------------------------------------


def add_user(client: redis.Redis, new: User) -> bool:
    """Store a new user; False if the name exists."""
    pipe = client.pipeline(transaction=True)
    pipe.hsetnx(USERS, new.name, msgspec.json.encode(new))
    pipe.hset(USERS, VERSION, uuid.uuid4().hex)
    return bool(translated(pipe.execute)[0])


def change_user(client: redis.Redis, changed: User) -> None:
    """Replace the user with the same name."""
    text = msgspec.json.encode(changed)
    translated(lambda: client.hset(USERS, mapping={changed.name: text, VERSION: uuid.uuid4().hex}))


def remove_user(client: redis.Redis, name: str) -> bool:
    """Remove a user; False if there is none. The caller must end the sessions."""
    return bool(translated(lambda: client.hdel(USERS, name)))


def add_session(client: redis.Redis, at: str, new: Session) -> None:
    """Store a new session, last used now."""
    pipe = client.pipeline(transaction=True)
    pipe.hset(SESSIONS, mapping={at: msgspec.json.encode(new), VERSION: uuid.uuid4().hex})
    pipe.hset(SESSIONS_USED, at, new.created_s)
    translated(pipe.execute)


def end_sessions(client: redis.Redis, ids: Iterable[str]) -> int:
    """Remove sessions; returns the number removed."""
    ended_ids = list(ids)
    if not ended_ids:
        return 0
    pipe = client.pipeline(transaction=True)
    pipe.hdel(SESSIONS, *ended_ids)
    pipe.hdel(SESSIONS_USED, *ended_ids)
    return int(translated(pipe.execute)[0])


def note_used(client: redis.Redis, last_s: Mapping[str, int]) -> None:
    """Store the last uses of sessions."""
    items = list(last_s.items())
    for start in range(0, len(items), USED_PART):
        translated(partial(client.hset, SESSIONS_USED, mapping=dict(items[start : start + USED_PART])))
