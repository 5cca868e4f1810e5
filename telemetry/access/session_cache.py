"""In-memory cache of users and sessions, refreshed from Redis once a second.

An ended session or a disabled user is rejected within `REFRESH_S` and the time of a read. A session that is not in the
cache is read at once, because the query program may receive a request a moment after the API program created the
session. Such reads are at least `GAP_S` apart. While Redis is unreachable the cache is used for `MAX_STALE_S`, as with
keys (key_cache.py).

Only the API program sees every request. It records when sessions were last used, ends idle and expired ones, and
removes them from Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import NamedTuple

import redis

from telemetry.access import user_store
from telemetry.access.holds import Holder, Holds
from telemetry.access.key_cache import MAX_STALE_S, REFRESH_S
from telemetry.access.user_store import People, Stamp
from telemetry.access.users import Session, User, caller_of_session, session_id
from telemetry.config.settings import Settings
from telemetry.hot_store.client import READ_TIMEOUT_S, connect
from telemetry.model import problems
from telemetry.model.api_keys import Caller, Denied
from telemetry.model.errors import BusyError, StoreError, StoreUnavailable
from telemetry.system.periodic import run_periodically

log = logging.getLogger(__name__)

GAP_S = 0.05
NOTE_S = 60.0
"""Interval at which last uses of sessions are written, s."""

ENDED = Denied(problems.NO_SESSION, "this session has ended or is unknown; sign in again")

AWAY = "cannot check this session: Redis, which stores sessions, is not reachable"


class Lifetime(NamedTuple):
    """Idle timeout of sessions, after their last request. 0 = this program does not see every request."""

    idle_s: int = 0

    @property
    def is_kept_here(self) -> bool:
        """True if this program records the use of sessions and removes those that have ended."""
        return self.idle_s > 0


class SessionCache:
    """Finds the caller of a session. All methods except `refresh` must be called in the event loop."""

    def __init__(
        self,
        client: redis.Redis,
        lifetime: Lifetime,
        now_s: Callable[[], float] = time.time,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._lifetime = lifetime
        self._now_s = now_s
        self._elapsed_s = elapsed_s
        self._stamp: Stamp | None = None
        self._people = People({}, {})
        self._used_s: dict[str, int] = {}
        self._noted_s: dict[str, int] = {}
        self._note_at_s = elapsed_s() + NOTE_S
        self._begun_s = -GAP_S
        self._read_at_s: float | None = None
        self._lock = asyncio.Lock()
        self._holds = Holds[Caller]()

    # Checks ------------------------------------------------------------------------------------------

    async def check(self, text: str) -> Caller | Denied:
        """The caller with this cookie, or why there is none. Raises `StoreUnavailable` if the cache is too old."""
        at = session_id(text)
        if at and at not in self._people.sessions:
            await self.read_again()
        if not self._is_fresh:
            raise StoreUnavailable(AWAY)
        return self._find(at) or ENDED

    def hold(self, caller: Caller, holder: Holder) -> None:
        """Register a holder to end once the caller's session no longer gives the same rights."""
        self._holds.take(caller.session, caller, holder)

    def release(self, caller: Caller, holder: Holder) -> None:
        """Forget a holder that has ended."""
        self._holds.release(caller.session, holder)

    async def end_withdrawn(self) -> None:
        """End the holders of sessions that ended or lost rights. An open response counts as use of its session."""
        for at in self._holds.ids:
            caller = self._find(at)
            await self._holds.judge(at, partial(self._withdrawal, caller))

    def _withdrawal(self, current: Caller | None, held: Caller) -> Denied | None:
        if not self._is_fresh:
            return Denied(problems.BUSY, AWAY)
        return None if current == held else ENDED

    def user(self, name: str) -> User | None:
        """A user by name."""
        return self._people.users.get(name)

    def sessions_of(self, name: str) -> list[tuple[str, Session]]:
        """Ids and sessions of a user, oldest first."""
        sessions = ((at, session) for at, session in self._people.sessions.items() if session.user == name)
        return sorted(sessions, key=lambda pair: pair[1].created_s)

    @property
    def count(self) -> int:
        """Number of all sessions."""
        return len(self._people.sessions)

    @property
    def has_users(self) -> bool:
        """True if there are users that can sign in with a password."""
        return bool(self._people.users)

    def _find(self, at: str) -> Caller | None:
        session = self._people.sessions.get(at)
        if session is None or self._is_over(at, session):
            return None
        caller = caller_of_session(session, at, self._people.users.get(session.user))
        if caller is not None and self._lifetime.is_kept_here:
            self._used_s[at] = int(self._now_s())
        return caller

    def _is_over(self, at: str, session: Session) -> bool:
        now_s, idle_s = self._now_s(), self._lifetime.idle_s
        used_s = self._used_s.get(at, session.created_s)
        return session.expires_s <= now_s or (idle_s > 0 and used_s + idle_s <= now_s)

    @property
    def _is_fresh(self) -> bool:
        return self._read_at_s is not None and self._elapsed_s() - self._read_at_s <= MAX_STALE_S

    # Refreshing --------------------------------------------------------------------------------------

    async def read_again(self) -> None:
        """Read the current state; one read serves all concurrent callers. No effect while Redis is unreachable."""
        asked_s = self._elapsed_s()
        async with self._lock:
            if self._begun_s <= asked_s:
                await asyncio.sleep(max(0.0, self._begun_s + GAP_S - self._elapsed_s()))
                await self._refresh()

    async def read_for_ever(self) -> None:
        """Refresh once a second."""
        await run_periodically("sessions", REFRESH_S, self._read)

    async def end_for_ever(self) -> None:
        """End the holders of ended sessions once a second, also while a read waits for Redis."""
        await run_periodically("ended sessions", REFRESH_S, self.end_withdrawn)

    async def _read(self) -> None:
        async with self._lock:
            await asyncio.shield(self._refresh())

    async def _refresh(self) -> None:
        try:
            await asyncio.to_thread(self.refresh)
        except (StoreError, BusyError) as error:
            log.debug("cannot refresh users and sessions, using those read before: %s", error)

    def refresh(self) -> None:
        """Read users and sessions if they changed, and remove ended sessions. Raises as user_store does."""
        begun_s = self._begun_s = self._elapsed_s()
        stamp, people = user_store.people_since(self._client, self._stamp)
        if people is not None:
            if self._lifetime.is_kept_here:
                self._take_used(people.sessions)
            self._people, self._stamp = people, stamp
        self._read_at_s = begun_s
        if self._lifetime.is_kept_here:
            self._tidy()

    def _take_used(self, sessions: Mapping[str, Session]) -> None:
        """Merge the last uses recorded by an earlier run of this program; forget sessions that have ended."""
        if self._stamp is None:
            self._noted_s = user_store.used(self._client)
            user_store.end_sessions(self._client, [at for at in self._noted_s if at not in sessions])
        used_s = {**self._noted_s, **self._used_s}
        self._used_s = {at: used_s[at] for at in sessions if at in used_s}
        self._noted_s = {at: noted for at, noted in self._noted_s.items() if at in sessions}

    def _tidy(self) -> None:
        ended = [at for at, session in self._people.sessions.items() if self._is_over(at, session)]
        user_store.end_sessions(self._client, ended)
        if self._elapsed_s() >= self._note_at_s:
            self._note_at_s = self._elapsed_s() + NOTE_S
            remaining = self._people.sessions.keys() - set(ended)
            used_s = {at: used for at, used in self._used_s.copy().items() if at in remaining}
            user_store.note_used(self._client, {at: s for at, s in used_s.items() if self._noted_s.get(at) != s})
            self._noted_s = used_s


@contextlib.asynccontextmanager
async def cached(client: redis.Redis, lifetime: Lifetime) -> AsyncIterator[SessionCache]:
    """Context with a cache that is refreshed; closes the client at the end."""
    with client:
        cache = SessionCache(client, lifetime)
        await cache.read_again()
        tasks = [asyncio.create_task(loop) for loop in (cache.read_for_ever(), cache.end_for_ever())]
        try:
            yield cache
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def required(settings: Settings, sees_all: bool) -> AbstractAsyncContextManager[SessionCache | None]:
    """Context with a program's cache; None if no keys are required. `sees_all`: every request passes this program."""
    if not settings.auth.required:
        return contextlib.nullcontext()
    lifetime = Lifetime(settings.auth.session_idle_s if sees_all else 0)
    return cached(connect(settings, READ_TIMEOUT_S), lifetime)
