"""The keys as a program knows them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time

import msgspec
import pytest
import redis

from telemetry.access import key_cache
from telemetry.access.key_cache import LOOKUP_TIMEOUT_S, MAX_STALE_S, Keyring, refreshed_keyring
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.coordination.shared_state import Stamp
from telemetry.hot_store.client import READ_TIMEOUT_S, connect
from telemetry.limits.lookup_limit import TOTAL
from telemetry.model import problems
from telemetry.model.api_keys import INGEST, READ, WRONG, Caller, Denied, Key, KeyRequest, device_token, make
from telemetry.model.errors import StoreUnavailable
from telemetry.observability import metrics
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
    text, key = make(KeyRequest((READ,)), NOW_S, secrets.token_bytes)
    store, clock = Store(**{key.id: key}), Clock()
    ring = Keyring(store.read, clock, clock)
    with pytest.raises(StoreUnavailable, match="cannot check this key"):
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
    with pytest.raises(StoreUnavailable, match="cannot check this key"):
        ring.check(text)
    store.is_away = False
    ring.refresh()
    assert isinstance(ring.check(text), Caller)


def test_a_key_runs_out_without_a_read() -> None:
    text, key = make(KeyRequest((READ,), expires_s=NOW_S + 10), NOW_S, secrets.token_bytes)
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


class Holding:
    """What holds a key."""

    def __init__(self, ring: Keyring, text: str) -> None:
        caller = ring.check(text)
        assert isinstance(caller, Caller)
        self.ended: Denied | None = None
        self.caller = caller
        ring.hold(caller, self)

    def end(self, denied: Denied) -> None:
        self.ended = denied


def test_what_holds_a_key_ends_with_it() -> None:
    made = [
        make(KeyRequest((READ,), expires_s=NOW_S + after_s), NOW_S, secrets.token_bytes) for after_s in (100, 200, 300)
    ]
    store, clock = Store(**{key.id: key for _, key in made}), Clock()
    ring = Keyring(store.read, clock, lambda: 0.0)
    ring.refresh()
    first, second, third = (Holding(ring, text) for text, _ in made)
    released = Holding(ring, made[0][0])
    ring.release(released.caller, released)

    def ended(now_s: float) -> list[bool]:
        clock.now_s = now_s
        ring.refresh()
        asyncio.run(ring.end_withdrawn())
        return [one.ended is not None for one in (first, second, third, released)]

    assert ended(NOW_S + 99) == [False] * 4
    del store.known[made[2][1].id]
    store.stamp += 1
    assert ended(NOW_S + 99) == [False, False, True, False]
    assert third.ended is WRONG
    assert ended(NOW_S + 100) == [True, False, True, False]
    assert first.ended is not None
    assert "expired" in first.ended.reason
    clock.now_s = NOW_S + 50  # the clock is set back, and the first key counts again
    asyncio.run(ring.end_withdrawn())
    first = Holding(ring, made[0][0])
    assert ended(NOW_S + 150) == [True, False, True, False]
    assert ended(NOW_S + 201) == [True, True, True, False]


def test_what_a_changed_key_allows_no_more_ends() -> None:
    fleet, key = make(KeyRequest((INGEST, READ), is_fleet=True), NOW_S, secrets.token_bytes)
    store, clock = Store(**{key.id: key}), Clock()
    ring = Keyring(store.read, clock, lambda: 0.0)
    ring.refresh()
    whole, lost, kept_one = (Holding(ring, text) for text in (fleet, *(device_token(fleet, one) for one in "ab")))

    def ended(**changes: object) -> list[bool]:
        store.known = {key.id: msgspec.structs.replace(store.known[key.id], **changes)}
        store.stamp += 1
        ring.refresh()
        asyncio.run(ring.end_withdrawn())
        return [one.ended is not None for one in (whole, lost, kept_one)]

    assert ended(name="another") == [False] * 3
    assert ended(revoked_devices=("a",)) == [False, True, False]
    assert ended(prefix="b") == [True, True, False]
    assert ended(scopes=(READ,)) == [True] * 3


def test_nothing_holds_a_key_that_nobody_can_judge() -> None:
    text, key = make(KeyRequest((READ,)), NOW_S, secrets.token_bytes)
    clock = Clock()
    ring = Keyring(Store(**{key.id: key}).read, clock, clock)
    ring.refresh()
    holding = Holding(ring, text)
    clock.now_s += MAX_STALE_S
    asyncio.run(ring.end_withdrawn())
    assert holding.ended is None
    clock.now_s += 1
    asyncio.run(ring.end_withdrawn())
    assert holding.ended is not None
    assert holding.ended.kind is problems.BUSY


async def becomes(ring: Keyring, text: str, kind: type) -> float:
    """How long it takes until a text is judged so, s."""
    begun_s = time.monotonic()
    while not isinstance(ring.check(text), kind):
        assert time.monotonic() - begun_s < 5
        await asyncio.sleep(0.02)
    return time.monotonic() - begun_s


def test_what_is_made_and_revoked_is_known_within_seconds(client: redis.Redis, settings: Settings) -> None:
    text, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)

    async def test() -> None:
        async with refreshed_keyring(lambda: connect(settings)) as ring:
            assert ring.check(text) is WRONG
            shared_state.add_key(client, key)
            await becomes(ring, text, Caller)
            holding = Holding(ring, text)
            shared_state.remove_key(client, key.id)
            assert await becomes(ring, text, Denied) < 5
            while holding.ended is None:  # noqa: ASYNC110 (as long as the test may take)
                await asyncio.sleep(0.02)

    asyncio.run(test())


def test_a_key_is_revoked_on_a_full_redis(client: redis.Redis, settings: Settings) -> None:
    found = [make(KeyRequest((INGEST,), is_fleet=True), int(time.time()), secrets.token_bytes) for _ in range(3)]
    for _, key in found:
        assert shared_state.add_key(client, key)
        assert not shared_state.add_key(client, key)
    stamp, known = shared_state.keys_since(client, None)
    assert known == {key.id: key for _, key in found}
    assert shared_state.keys_since(client, stamp) == (stamp, None)
    client.config_set("maxmemory", 1)
    try:
        for left, (_, key) in zip((2, 1, 0), found, strict=True):
            assert shared_state.remove_key(client, key.id)
            assert not shared_state.remove_key(client, key.id)
            stamp, known = shared_state.keys_since(client, stamp)
            assert known is not None
            assert len(known) == left
    finally:
        client.config_set("maxmemory", 0)


def test_a_changed_key_is_read_again(client: redis.Redis) -> None:
    _, key = make(KeyRequest((INGEST,), is_fleet=True), int(time.time()), secrets.token_bytes)
    shared_state.add_key(client, key)
    stamp, _ = shared_state.keys_since(client, None)
    changed = Key(**{name: getattr(key, name) for name in Key.__struct_fields__} | {"revoked_devices": ("van-7",)})
    shared_state.change_key(client, changed)
    assert shared_state.keys_since(client, stamp)[1] == {key.id: changed}


def test_keys_count_on_while_redis_is_away(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "REFRESH_S", 0.05)
    text, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)
    with own_redis.client() as client:
        shared_state.add_key(client, key)

    async def test() -> None:
        async with refreshed_keyring(own_redis.client) as ring:
            assert isinstance(ring.check(text), Caller)
            own_redis.kill()
            await asyncio.sleep(0.3)
            assert isinstance(ring.check(text), Caller)
            own_redis.start()
            with own_redis.client() as client:
                shared_state.remove_key(client, key.id)
            await becomes(ring, text, Denied)

    asyncio.run(test())


def test_the_use_of_keys_is_noted(client: redis.Redis, settings: Settings) -> None:
    """Noted at the end of a program and each minute: keys that passed a check, and those that something holds."""
    made = {name: make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes) for name in ("used", "held", "idle")}
    for _, key in made.values():
        shared_state.add_key(client, key)

    async def use() -> None:
        async with refreshed_keyring(lambda: connect(settings), is_noting=True) as ring:
            assert isinstance(ring.check(made["used"][0]), Caller)
            assert ring.check("wk_aaaaaaaa_" + 26 * "a") == WRONG
            held = ring.check(made["held"][0])
            assert isinstance(held, Caller)
            assert ring.take_used() == {made["used"][1].id, held.key_id}
            assert ring.holds(held, ring.changes)
            assert isinstance(ring.check(made["used"][0]), Caller)

    asyncio.run(use())
    noted = shared_state.used(client)
    assert noted.keys() == {made[name][1].id for name in ("used", "held")}
    assert all(abs(at_s - time.time()) < 60 for at_s in noted.values())
    assert shared_state.remove_key(client, made["used"][1].id)
    assert shared_state.used(client).keys() == {made["held"][1].id}


def test_a_redis_that_is_away_keeps_no_program_from_ending(own_redis: RedisServer) -> None:
    text, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)
    with own_redis.client() as client:
        shared_state.add_key(client, key)

    async def use() -> None:
        async with refreshed_keyring(own_redis.client, is_noting=True) as ring:
            assert isinstance(ring.check(text), Caller)
            own_redis.kill()

    began_s = time.monotonic()
    asyncio.run(use())
    assert time.monotonic() - began_s < READ_TIMEOUT_S
    own_redis.start()
    with own_redis.client() as client:
        assert shared_state.used(client) == {}


def wrong_key(number: int) -> str:
    """A key of the right shape that nobody has."""
    digits = "".join("abcdefghij"[int(digit)] for digit in f"{number:08}")
    return f"wk_{digits}_{26 * 'a'}"


def times_read(client: redis.Redis) -> int:
    """How often Redis was asked for the number of keys, as each read of keys does."""
    return int(client.info("commandstats").get("cmdstat_hlen", {"calls": 0})["calls"])


@pytest.fixture
def _no_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are read at the start, and then only by look-ups."""
    monkeypatch.setattr(key_cache, "REFRESH_S", 3_600.0)


@pytest.mark.usefixtures("_no_refresh")
def test_a_new_key_and_a_token_of_a_new_fleet_are_found_at_once(client: redis.Redis, settings: Settings) -> None:
    text, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)
    fleet, fleet_key = make(KeyRequest((INGEST,), is_fleet=True), int(time.time()), secrets.token_bytes)
    token = device_token(fleet, "van-7")

    async def test() -> None:
        async with refreshed_keyring(lambda: connect(settings)) as ring:
            for one, shown in ((key, text), (fleet_key, token)):
                await ring.find_new(shown, "192.0.2.1")
                assert ring.check(shown) is WRONG
                shared_state.add_key(client, one)
                await ring.find_new(shown, "192.0.2.1")
                assert isinstance(ring.check(shown), Caller)

    asyncio.run(test())


@pytest.mark.usefixtures("_no_refresh")
def test_concurrent_look_ups_of_a_key_share_one(client: redis.Redis, settings: Settings) -> None:
    text, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)

    async def test() -> None:
        async with refreshed_keyring(lambda: connect(settings)) as ring:
            before = times_read(client)
            shared_state.add_key(client, key)
            await asyncio.gather(*(ring.find_new(text, "192.0.2.1") for _ in range(1_000)))
            assert isinstance(ring.check(text), Caller)
            assert times_read(client) == before + 1

    asyncio.run(test())


@pytest.mark.usefixtures("_no_refresh")
def test_wrong_keys_cause_no_more_reads_than_the_limit(client: redis.Redis, settings: Settings) -> None:
    known, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)
    shared_state.add_key(client, key)

    async def reads(ring: Keyring, *asked: tuple[str, str]) -> int:
        before = times_read(client)
        for text, address in asked:
            await ring.find_new(text, address)
            assert not isinstance(ring.check(text), Caller) or text == known
        return times_read(client) - before

    async def test() -> None:
        async with refreshed_keyring(lambda: connect(settings)) as ring:
            shapeless = ("", "secret", "wk_", "wk_aaaaaaaa_short", known[:-1] + "-", "wk_" + "a" * 2_000)
            others_secret = known[:-26] + "a" * 26
            assert await reads(ring, *((text, "192.0.2.1") for text in (*shapeless, others_secret, known))) == 0
            one_address = [(wrong_key(number), "192.0.2.1") for number in range(500)]
            begun_s = time.monotonic()
            of_one = await reads(ring, *one_address)
            assert 60 <= of_one <= 61 + time.monotonic() - begun_s
            many = [(wrong_key(number), f"192.0.{number // 200}.{number % 200}") for number in range(1_000)]
            of_many = await reads(ring, *many)
            assert of_one + of_many <= TOTAL.burst + TOTAL.per_s * (time.monotonic() - begun_s) + 1

    asyncio.run(test())


@pytest.mark.usefixtures("_no_refresh")
def test_a_key_is_not_called_wrong_while_redis_is_away_or_silent(own_redis: RedisServer) -> None:
    text, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)

    async def test() -> None:
        async with refreshed_keyring(own_redis.client) as ring:
            with own_redis.client() as client:
                shared_state.add_key(client, key)
                pid = int(client.info("server")["process_id"])
            os.kill(pid, signal.SIGSTOP)
            begun_s = time.monotonic()
            try:
                found = await asyncio.gather(
                    *(ring.find_new(one, "192.0.2.1") for one in (text, text, wrong_key(1))), return_exceptions=True
                )
            finally:
                os.kill(pid, signal.SIGCONT)
            assert [type(one) for one in found] == [StoreUnavailable] * 3
            assert time.monotonic() - begun_s < LOOKUP_TIMEOUT_S + 2
            await ring.find_new(text, "192.0.2.1")
            assert isinstance(ring.check(text), Caller)
            own_redis.kill()
            with pytest.raises(StoreUnavailable, match="cannot check this key"):
                await ring.find_new(wrong_key(2), "192.0.2.1")
            assert isinstance(ring.check(text), Caller)

    asyncio.run(test())


def test_a_key_that_cannot_be_decoded_costs_only_itself(
    client: redis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    made = [make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes) for _ in range(3)]
    for _, key in made[:2]:
        shared_state.add_key(client, key)
    counted = metrics.UNDECODABLE.of("keys").value

    async def test() -> None:
        async with refreshed_keyring(lambda: connect(settings)) as ring:
            assert isinstance(ring.check(made[0][0]), Caller)
            client.hset(shared_state.KEYS, made[0][1].id, b'{"id": 5')
            client.hset(shared_state.KEYS, b"\xff\xfe", b"{}")
            for text, key in made[2:]:
                shared_state.add_key(client, key)
                await becomes(ring, text, Caller)
            assert isinstance(ring.check(made[1][0]), Caller)
            assert ring.check(made[0][0]) is WRONG

    asyncio.run(test())
    assert metrics.UNDECODABLE.of("keys").value >= counted + 2
    assert caplog.text.count(f"cannot decode '{made[0][1].id}' of keys") == 1


def test_an_unexpected_error_does_not_end_the_reading_of_keys(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, key = make(KeyRequest((READ,)), int(time.time()), secrets.token_bytes)

    async def test() -> None:
        async with refreshed_keyring(lambda: connect(settings)) as ring:
            with monkeypatch.context() as patched:
                patched.setattr(ring, "refresh", lambda: 1 // 0)
                while not metrics.LOOP_ERRORS.of("keys").value:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            shared_state.add_key(client, key)
            await becomes(ring, text, Caller)

    counted = metrics.LOOP_ERRORS.of("keys")
    counted.value = 0
    asyncio.run(test())
    assert counted.value >= 1
