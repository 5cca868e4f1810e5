"""The keys as a program knows them."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
import redis

from telemetry import keyring, notes
from telemetry.errors import StoreUnavailable
from telemetry.keyring import MAX_STALE_S, Keyring, kept
from telemetry.keys import INGEST, READ, WRONG, Caller, Denied, Key, Wish, make
from telemetry.notes import Stamp
from telemetry.redis_client import connect
from telemetry.settings import Settings
from tests.conftest import RedisServer

NOW_S = 1_795_500_000


class Store:
    """Keys that may be away."""

    def __init__(self, **known: Key) -> None:
        self.known = known
        self.is_away = False
        self.stamp = 0
        self.read_whole = 0

    def read(self, stamp: Stamp | None) -> tuple[Stamp, dict[str, Key] | None]:
        if self.is_away:
            raise StoreUnavailable("away")
        new = Stamp(b"%d" % self.stamp, len(self.known))
        if new == stamp:
            return new, None
        self.read_whole += 1
        return new, dict(self.known)


class Clock:
    now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


def test_a_keyring_goes_by_what_it_read_last_for_a_time() -> None:
    text, key = make(Wish((READ,)), NOW_S, secrets.token_bytes)
    store, clock = Store(**{key.id: key}), Clock()
    ring = Keyring(store.read, clock, clock)
    with pytest.raises(StoreUnavailable, match="cannot tell whose key"):
        ring.check(text)
    ring.refresh()
    ring.refresh()
    assert (store.read_whole, ring.changes) == (1, 1)
    assert isinstance(ring.check(text), Caller)
    store.is_away = True
    with pytest.raises(StoreUnavailable):
        ring.refresh()
    clock.now_s += MAX_STALE_S
    assert isinstance(ring.check(text), Caller)
    clock.now_s += 1
    with pytest.raises(StoreUnavailable, match="cannot tell whose key"):
        ring.check(text)
    store.is_away = False
    ring.refresh()
    assert isinstance(ring.check(text), Caller)


def test_a_key_runs_out_without_a_read() -> None:
    text, key = make(Wish((READ,), expires_s=NOW_S + 10), NOW_S, secrets.token_bytes)
    clock = Clock()
    ring = Keyring(Store(**{key.id: key}).read, clock, clock)
    ring.refresh()
    caller = ring.check(text)
    assert isinstance(caller, Caller)
    assert ring.holds(caller, ring.changes)
    assert not ring.holds(caller, ring.changes - 1)
    clock.now_s += 10
    assert not ring.holds(caller, ring.changes)
    assert isinstance(ring.check(text), Denied)


async def becomes(ring: Keyring, text: str, kind: type) -> float:
    """How long it takes until a text is judged so, s."""
    begun_s = time.monotonic()
    while not isinstance(ring.check(text), kind):
        assert time.monotonic() - begun_s < 5
        await asyncio.sleep(0.02)
    return time.monotonic() - begun_s


def test_what_is_made_and_revoked_is_known_within_seconds(client: redis.Redis, settings: Settings) -> None:
    text, key = make(Wish((READ,)), int(time.time()), secrets.token_bytes)

    async def test() -> None:
        async with kept(lambda: connect(settings)) as ring:
            assert ring.check(text) is WRONG
            notes.add_key(client, key)
            await becomes(ring, text, Caller)
            notes.remove_key(client, key.id)
            assert await becomes(ring, text, Denied) < 5

    asyncio.run(test())


def test_a_key_is_revoked_on_a_full_redis(client: redis.Redis, settings: Settings) -> None:
    found = [make(Wish((INGEST,), is_fleet=True), int(time.time()), secrets.token_bytes) for _ in range(3)]
    for _, key in found:
        assert notes.add_key(client, key)
        assert not notes.add_key(client, key)
    stamp, known = notes.keys_since(client, None)
    assert known == {key.id: key for _, key in found}
    assert notes.keys_since(client, stamp) == (stamp, None)
    client.config_set("maxmemory", 1)
    try:
        for left, (_, key) in zip((2, 1, 0), found, strict=True):
            assert notes.remove_key(client, key.id)
            assert not notes.remove_key(client, key.id)
            stamp, known = notes.keys_since(client, stamp)
            assert known is not None
            assert len(known) == left
    finally:
        client.config_set("maxmemory", 0)


def test_a_changed_key_is_read_again(client: redis.Redis) -> None:
    _, key = make(Wish((INGEST,), is_fleet=True), int(time.time()), secrets.token_bytes)
    notes.add_key(client, key)
    stamp, _ = notes.keys_since(client, None)
    changed = Key(**{name: getattr(key, name) for name in Key.__struct_fields__} | {"revoked_devices": ("van-7",)})
    notes.change_key(client, changed)
    assert notes.keys_since(client, stamp)[1] == {key.id: changed}


def test_keys_count_on_while_redis_is_away(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "REFRESH_S", 0.05)
    text, key = make(Wish((READ,)), int(time.time()), secrets.token_bytes)
    with own_redis.client() as client:
        notes.add_key(client, key)

    async def test() -> None:
        async with kept(own_redis.client) as ring:
            assert isinstance(ring.check(text), Caller)
            own_redis.kill()
            await asyncio.sleep(0.3)
            assert isinstance(ring.check(text), Caller)
            own_redis.start()
            with own_redis.client() as client:
                notes.remove_key(client, key.id)
            await becomes(ring, text, Denied)

    asyncio.run(test())
