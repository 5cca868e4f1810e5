"""The cache of users and sessions, and how both are stored."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis

from telemetry.access import user_store
from telemetry.access.key_cache import MAX_STALE_S
from telemetry.access.session_cache import ENDED, NOTE_S, Lifetime, SessionCache
from telemetry.access.users import Session, User, make_user, new_session, session_id
from telemetry.coordination import shared_state
from telemetry.model.api_keys import Caller, Denied
from telemetry.model.errors import StoreUnavailable
from tests.conftest import RedisServer

NOW_S = 1_795_500_000
ADA = make_user("ada", "viewer", NOW_S)


class Clock:
    now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


class Ended:
    """A long answer."""

    denied: Denied | None = None

    def end(self, denied: Denied) -> None:
        self.denied = denied


def add(client: redis.Redis, user: User | None = ADA, lasts_s: int = 600, **more: Any) -> str:
    """A user, unless there is one, and a session; returns its cookie."""
    if user is not None:
        user_store.add_user(client, user)
    text = new_session(secrets.token_bytes)
    name = user.name if user else "eve"
    user_store.add_session(client, session_id(text), Session(name, NOW_S, NOW_S + lasts_s, "10.1.2.3", **more))
    return text


def run(client: redis.Redis, idle_s: int, work: Callable[[SessionCache, Clock], Any]) -> None:
    async def within() -> None:
        clock = Clock()
        await work(SessionCache(client, Lifetime(idle_s), clock, clock), clock)

    asyncio.run(within())


def test_a_new_session_is_found_at_once_and_an_ended_one_is_not(client: redis.Redis) -> None:
    text = add(client)

    async def work(cache: SessionCache, clock: Clock) -> None:
        caller = await cache.check(text)
        assert isinstance(caller, Caller)
        cache.hold(caller, holder := Ended())
        await cache.end_withdrawn()
        assert holder.denied is None
        assert (cache.count, cache.has_users, cache.user("ada")) == (1, True, ADA)
        clock.now_s += 1
        later = add(client)
        assert isinstance(await cache.check(later), Caller)
        assert [at for at, _ in cache.sessions_of("ada")] == [session_id(text), session_id(later)]
        assert user_store.end_sessions(client, [session_id(text)]) == 1
        await cache.read_again()
        await cache.end_withdrawn()
        assert holder.denied is ENDED
        assert await cache.check(text) is ENDED
        assert await cache.check("nonsense") is ENDED

    run(client, 0, work)


def test_a_changed_role_ends_what_holds_and_a_disabled_user_is_refused(client: redis.Redis) -> None:
    text = add(client)

    async def work(cache: SessionCache, clock: Clock) -> None:
        caller = await cache.check(text)
        assert isinstance(caller, Caller)
        cache.hold(caller, holder := Ended())
        user_store.change_user(client, make_user("ada", "admin", NOW_S))
        clock.now_s += 1
        await cache.read_again()
        await cache.end_withdrawn()
        assert holder.denied is ENDED
        again = await cache.check(text)
        assert isinstance(again, Caller)
        assert again.may("admin")
        user_store.change_user(client, msgspec.structs.replace(ADA, is_disabled=True))
        clock.now_s += 1
        await cache.read_again()
        assert await cache.check(text) is ENDED
        user_store.remove_user(client, "ada")
        clock.now_s += 1
        await cache.read_again()
        assert not cache.has_users

    run(client, 0, work)


def test_idle_and_expired_sessions_end_and_are_removed(client: redis.Redis) -> None:
    text, short = add(client), add(client, lasts_s=30)

    async def work(cache: SessionCache, clock: Clock) -> None:
        assert isinstance(await cache.check(short), Caller)
        clock.now_s += 30
        assert await cache.check(short) is ENDED
        assert isinstance(await cache.check(text), Caller)
        clock.now_s += NOTE_S
        await cache.read_again()
        assert user_store.used(client) == {session_id(text): NOW_S + 30}
        clock.now_s = NOW_S + 30 + 99
        assert isinstance(await cache.check(text), Caller)
        clock.now_s += 100
        assert await cache.check(text) is ENDED
        await cache.read_again()
        assert user_store.people(client).sessions == {}
        assert user_store.used(client) == {}

    run(client, 100, work)


def test_another_run_of_the_program_knows_when_sessions_were_used(client: redis.Redis) -> None:
    text = add(client)
    user_store.note_used(client, {session_id(text): NOW_S + 90})

    async def work(cache: SessionCache, clock: Clock) -> None:
        clock.now_s += 150
        assert isinstance(await cache.check(text), Caller)

    run(client, 100, work)


def test_many_that_ask_for_nothing_share_reads(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    real = user_store.people_since

    def counted(client: redis.Redis, known: user_store.Stamp | None) -> object:
        reads.append(known)
        return real(client, known)

    monkeypatch.setattr(user_store, "people_since", counted)

    async def work(cache: SessionCache, _clock: Clock) -> None:
        texts = [new_session(secrets.token_bytes) for _ in range(50)]
        assert set(await asyncio.gather(*map(cache.check, texts))) == {ENDED}
        assert len(reads) <= 50

    async def within() -> None:
        await work(SessionCache(client, Lifetime()), Clock())

    asyncio.run(within())
    assert len(reads) <= 2


def test_without_redis_sessions_count_on_for_a_time(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        text = add(client)

        async def work(cache: SessionCache, clock: Clock) -> None:
            assert isinstance(await cache.check(text), Caller)
            own_redis.kill()
            clock.now_s += MAX_STALE_S
            await cache.read_again()
            assert isinstance(await cache.check(text), Caller)
            clock.now_s += 1
            with pytest.raises(StoreUnavailable, match="cannot check this session"):
                await cache.check(text)

        run(client, 0, work)


def test_what_is_stored(client: redis.Redis) -> None:
    text = add(client)
    assert not user_store.add_user(client, ADA)
    stored = str(client.hgetall(shared_state.SESSIONS)) + str(client.hgetall(shared_state.USERS))
    assert text not in stored
    stamp, people = user_store.people_since(client, None)
    assert people is not None
    assert set(people.users) == {"ada"}
    assert user_store.people_since(client, stamp) == (stamp, None)
    user_store.end_sessions(client, [session_id(text)])
    assert user_store.people_since(client, stamp)[0] != stamp
    assert user_store.end_sessions(client, []) == 0
