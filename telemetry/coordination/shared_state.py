"""What the programs of a box tell each other in Redis, beside the shards: small keys that belong to all of it.

This file is all that knows these keys, with user_store.py for those of users and sessions, and known_devices.py.

    whimbrel:alive     hash  program → s since epoch of its last sign of life
    whimbrel:refused   hash  reason → how much was ever refused for it (rejection_counts.py)
    whimbrel:forward   hash  name → how far the courier is with it, JSON (`Forwarded`); gone a day after its last note
    whimbrel:keys      hash  id → a key, JSON (api_keys.py); "version" → a text that changes with each change but a
    removal whimbrel:used      hash  id of a key → s since epoch of its last use, as noted once a minute whimbrel:users
    hash  name → a user, JSON (access/users.py); ":version" as above (user_store.py has the functions) whimbrel:sessions
    hash  SHA-256 of a session's cookie, in hex → the session, JSON (access/users.py); ":version" as above
    whimbrel:sessions:used  hash  the same id → s since epoch of its last request, at most a minute old whimbrel:alert
    hash  name → what waits for a receiver of events, JSON (`Told`); the same whimbrel:known_devices  set  ids that
    `whimbrel devices add` made known (known_devices.py has the functions) whimbrel:sniff     sorted set  port → ms
    since epoch until which somebody wants to see its frames whimbrel:changed   channel  whose latest has changed, told
    by `append` (lua/append.lua): ids with a zero byte in between whimbrel:frames:<port>  channel  each frame that came
    there while somebody wanted to see them, JSON whimbrel:meters    channel, no key: what each process has counted,
    told once a second (metric_reports.py) whimbrel:box       list  how the box was in the last hour, a sample each, the
    newest first, JSON (api/status/sampler.py) whimbrel:backup    string  the last backup, JSON (`BackedUp`)
    whimbrel:mqtt      hash  a session at an MQTT broker → its subscriptions, JSON whimbrel:mqtt:stored  hash  digest of
    a session's topic or packet id → digest of its last message that is stored
                       (collector/mqtt/retained_messages.py), `MAX_STORED_TOPICS` at most

Each function raises `StoreUnavailable` if Redis can't be asked, `BusyError` if it is at its limit.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import redis
from msgspec import Struct

from telemetry.hot_store import corruption
from telemetry.hot_store.shard import translated
from telemetry.model.api_keys import Key

ALIVE = "whimbrel:alive"
REFUSED = "whimbrel:refused"
FORWARD = "whimbrel:forward"
ALERT = "whimbrel:alert"
KEYS = "whimbrel:keys"
USED = "whimbrel:used"
USERS = "whimbrel:users"
SESSIONS = "whimbrel:sessions"
SESSIONS_USED = "whimbrel:sessions:used"

KNOWN_DEVICES = "whimbrel:known_devices"

METERS = "whimbrel:meters"
CHANGED = "whimbrel:changed"
SNIFF = "whimbrel:sniff"
FRAMES = "whimbrel:frames:"

BOX = "whimbrel:box"
BACKUP = "whimbrel:backup"
MQTT = "whimbrel:mqtt"
MQTT_STORED = "whimbrel:mqtt:stored"

CONFIRMED_WITHIN_S = 2.0

TAKERS = ("collector", "api")
"""Who takes records."""

WRITERS = {
    ALIVE: ("worker", "scheduler"),
    REFUSED: (*TAKERS, "query", "worker"),
    FORWARD: ("courier",),
    ALERT: ("courier",),
    KEYS: (),
    USED: TAKERS,
    USERS: (),
    SESSIONS: ("api",),
    SESSIONS_USED: ("api",),
    KNOWN_DEVICES: (),
    SNIFF: (),
    BOX: ("api",),
    BACKUP: (),
    MQTT: ("collector",),
    MQTT_STORED: ("collector",),
}
"""Which roles (credentials.py) may change a key; every role may read it, and people's commands may change all."""

KEPT_S = 86_400
"""A note that nobody has renewed for so long is gone."""

# Signs of life ---------------------------------------------------------------------------------------

COLLECTOR, WORKER, SCHEDULER = "collector", "worker", "scheduler"
QUERY, API, COURIER = "query", "api", "courier"
"""The programs. Worker and scheduler give signs of life: /readyz is bad without them."""


def say_alive(client: redis.Redis, program: str, now_s: float) -> None:
    """Note that a program works."""
    translated(lambda: client.hset(ALIVE, program, f"{now_s:.3f}"))


def seen_alive(client: redis.Redis) -> dict[str, float]:
    """Program → s since the epoch of its last sign of life."""
    found = translated(lambda: client.hgetall(ALIVE))
    return {name.decode(): float(seen) for name, seen in found.items()}


def require_writable(client: redis.Redis) -> None:
    """Raise `StoreUnavailable` if Redis takes no writes from who asks; nothing is written."""
    translated(lambda: client.hdel(REFUSED, ""))


# Refusals --------------------------------------------------------------------------------------------


def add_refused(client: redis.Redis, counts: Mapping[str, int]) -> None:
    """Add to what was refused for each reason, all at once or, if it can't be now, nothing."""
    pipe = client.pipeline(transaction=True)
    for reason, count in counts.items():
        pipe.hincrby(REFUSED, reason, count)
    translated(pipe.execute)


def refused(client: redis.Redis) -> dict[str, int]:
    """Reason → how much was ever refused for it."""
    found = translated(lambda: client.hgetall(REFUSED))
    return {reason.decode(): int(count) for reason, count in sorted(found.items())}


# Keys ------------------------------------------------------------------------------------------------

VERSION = "version"
"""Shorter than a key's id."""


class Stamp(NamedTuple):
    """What tells that keys have changed: a removal, which a full Redis must take, too, changes only their number."""

    version: bytes | None
    number: int


def add_key(client: redis.Redis, key: Key) -> bool:
    """Keep a new key; False if there is one of its id."""
    pipe = client.pipeline(transaction=True)
    pipe.hsetnx(KEYS, key.id, msgspec.json.encode(key))
    pipe.hset(KEYS, VERSION, uuid.uuid4().hex)
    return bool(translated(pipe.execute)[0])


def change_key(client: redis.Redis, key: Key) -> None:
    """Keep a key in another form."""
    translated(lambda: client.hset(KEYS, mapping={key.id: msgspec.json.encode(key), VERSION: uuid.uuid4().hex}))


def remove_key(client: redis.Redis, key_id: str) -> bool:
    """Forget a key and its last use; False if there was none."""
    is_removed = bool(translated(lambda: client.hdel(KEYS, key_id)))
    translated(lambda: client.hdel(USED, key_id))
    return is_removed


def keys(client: redis.Redis) -> dict[str, Key]:
    """Id → key."""
    return keys_since(client, None)[1] or {}


def keys_since(client: redis.Redis, known: Stamp | None) -> tuple[Stamp, dict[str, Key] | None]:
    """All keys by their ids, and their stamp; None for them if it is still the one that is known.

    A key that cannot be decoded is skipped (corruption.py): nobody can use it.
    """
    pipe = client.pipeline(transaction=True)
    pipe.hget(KEYS, VERSION)
    pipe.hlen(KEYS)
    if known == Stamp(*translated(pipe.execute)):
        return known, None
    found = translated(lambda: client.hgetall(KEYS))
    stamp = Stamp(found.get(VERSION.encode()), len(found))
    fields = ((name, text) for name, text in found.items() if name != VERSION.encode())
    return stamp, corruption.decoded("keys", fields, _decode_key)


_decode_key = msgspec.json.Decoder(Key).decode


def note_used(client: redis.Redis, key_ids: Iterable[str], now_s: int) -> None:
    """Note that these keys were used until now."""
    translated(lambda: client.hset(USED, mapping=dict.fromkeys(key_ids, now_s)))


def used(client: redis.Redis) -> dict[str, int]:
    """Id of a key to the s since epoch of its last use; those never used are left out."""
    found = translated(lambda: client.hgetall(USED))
    return {key_id.decode(): int(at_s) for key_id, at_s in found.items()}


# Meters ----------------------------------------------------------------------------------------------


def tell_meters(client: redis.Redis, report: bytes) -> None:
    """Tell who listens what a process has counted. It is kept nowhere, so costs no fsync and needs no memory."""
    translated(lambda: client.publish(METERS, report))


# The courier -----------------------------------------------------------------------------------------


class Forwarded(Struct, frozen=True):
    """How far a `[[forward]]` is. `version` is the last of the table that is done, -1 if none; `behind_…` is what
    waits, `behind_s` the age of the oldest record of that; times are ms since epoch, None for never; `trouble` says why
    it can't go on, empty if it can.
    """

    name: str
    url: str
    noted_ms: int
    version: int = -1
    behind_versions: int = 0
    behind_records: int = 0
    behind_bytes: int = 0
    behind_s: float = 0.0
    oldest_waiting_ms: int | None = None
    sent_records: int = 0
    refused_records: int = 0
    dropped_records: int = 0
    dropped_versions: int = 0
    last_success_ms: int | None = None
    trouble: str = ""


class Told(Struct, frozen=True):
    """What an `[[alert]]` has told, and what waits."""

    name: str
    url: str
    noted_ms: int
    pending_events: int = 0
    silent_devices: int = 0
    sent_events: int = 0
    last_success_ms: int | None = None
    trouble: str = ""


def note_forwards(client: redis.Redis, found: Sequence[Forwarded]) -> None:
    """Note how far all forwards are, instead of what was noted before."""
    _note(client, FORWARD, {one.name: one for one in found})


def forwards(client: redis.Redis) -> list[Forwarded]:
    """How far each forward is, by name, as it was noted last."""
    return _noted(client, FORWARD, Forwarded)


def note_alerts(client: redis.Redis, found: Sequence[Told]) -> None:
    """Note what waits for all receivers of events, instead of what was noted before."""
    _note(client, ALERT, {one.name: one for one in found})


def alerts(client: redis.Redis) -> list[Told]:
    """What waits for each receiver of events, by name, as it was noted last."""
    return _noted(client, ALERT, Told)


T = TypeVar("T", Forwarded, Told)


def _note(client: redis.Redis, key: str, found: Mapping[str, Struct]) -> None:
    pipe = client.pipeline(transaction=True)
    pipe.delete(key)
    for name, one in found.items():
        pipe.hset(key, name, msgspec.json.encode(one))
    pipe.expire(key, KEPT_S)
    translated(pipe.execute)


def _noted(client: redis.Redis, key: str, kind: type[T]) -> list[T]:
    found = translated(lambda: client.hgetall(key))
    return [msgspec.json.decode(text, type=kind) for _, text in sorted(found.items())]


# Frames that somebody looks at -----------------------------------------------------------------------


def ask_for_frames(client: redis.Redis, port: int, now_ms: int, for_ms: int) -> None:
    """Have the collectors publish what comes to a port, for so long."""

    def ask() -> None:
        with client.pipeline() as pipe:
            pipe.zadd(SNIFF, {str(port): now_ms + for_ms})
            pipe.pexpire(SNIFF, 10 * for_ms)
            pipe.execute()

    translated(ask)


def ports_asked_for(client: redis.Redis, now_ms: int) -> frozenset[int]:
    """The ports whose frames somebody wants to see now."""
    return frozenset(int(port) for port in translated(lambda: client.zrange(SNIFF, now_ms, "+inf", byscore=True)))


def publish_frames(client: redis.Redis, frames: Sequence[tuple[int, bytes]]) -> None:
    """Show frames, each with its port, to those who asked for them."""

    if not frames:
        return

    def publish() -> None:
        with client.pipeline(transaction=False) as pipe:
            for port, frame in frames:
                pipe.publish(f"{FRAMES}{port}", frame)
            pipe.execute()

    translated(publish)


class Frames:
    """What is published of a port from now on."""

    def __init__(self, client: redis.Redis, port: int) -> None:
        self._heard = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        translated(lambda: self._heard.subscribe(f"{FRAMES}{port}"))
        self.next(CONFIRMED_WITHIN_S)  # Redis says that it is so, which is no frame

    def next(self, within_s: float) -> bytes | None:
        """The next frame, or None if none came in time."""
        found = translated(lambda: self._heard.get_message(timeout=within_s))
        return None if found is None else bytes(found["data"])

    def close(self) -> None:
        """Hear no more."""
        self._heard.close()


# How the box was -------------------------------------------------------------------------------------


def keep_sample(client: redis.Redis, sample: bytes, most: int) -> None:
    """Keep a sample, and of those before it so many that there are `most`."""
    pipe = client.pipeline(transaction=True)
    pipe.lpush(BOX, sample)
    pipe.ltrim(BOX, 0, most - 1)
    translated(pipe.execute)


def samples(client: redis.Redis) -> list[bytes]:
    """All samples that are kept, the oldest first."""
    return list(reversed(translated(lambda: client.lrange(BOX, 0, -1))))


# Backups ---------------------------------------------------------------------------------------------


class BackedUp(Struct, frozen=True):
    """The last backup: the moment that it shows, ms since epoch, how long it took, and of its bytes those that no
    earlier backup had."""

    path: str
    made_ms: int
    took_s: float
    size_bytes: int
    new_bytes: int


def note_backup(client: redis.Redis, made: BackedUp) -> None:
    """Note a backup that is whole."""
    translated(lambda: client.set(BACKUP, msgspec.json.encode(made)))


def backup(client: redis.Redis) -> BackedUp | None:
    """The last backup as it was noted, None if none ever was."""
    found = translated(lambda: client.get(BACKUP))
    return None if found is None else msgspec.json.decode(found, type=BackedUp)


# Sessions at MQTT brokers ----------------------------------------------------------------------------

MAX_STORED_TOPICS = 500_000
"""Maximum fields of `whimbrel:mqtt:stored`, some 40 MB. Above it random ones go: their retained messages may be stored
a second time."""


def subscriptions(client: redis.Redis, session: str) -> frozenset[str]:
    """Topic filters that a session at a broker may have; none if none were noted."""
    found = translated(lambda: client.hget(MQTT, session))
    return frozenset() if found is None else msgspec.json.decode(found, type=frozenset[str])


def note_subscriptions(client: redis.Redis, session: str, filters: Iterable[str]) -> None:
    """Note the topic filters that a session at a broker may have from now on."""
    translated(lambda: client.hset(MQTT, session, msgspec.json.encode(sorted(filters))))


def stored_messages(client: redis.Redis, topics: Sequence[bytes]) -> list[bytes | None]:
    """Digest of the last stored message of each topic; None where none was noted."""
    found: list[bytes | None] = translated(lambda: client.hmget(MQTT_STORED, topics))
    return found


def note_stored_messages(
    client: redis.Redis, digests: Mapping[bytes, bytes], max_topics: int = MAX_STORED_TOPICS
) -> None:
    """Note digests of the last stored messages, by topic."""
    pipe = client.pipeline(transaction=False)
    pipe.hset(MQTT_STORED, items=[part for pair in digests.items() for part in pair])
    pipe.hlen(MQTT_STORED)
    surplus = translated(pipe.execute)[1] - max_topics
    if surplus > 0:
        topics = translated(lambda: client.hrandfield(MQTT_STORED, surplus))
        translated(lambda: client.hdel(MQTT_STORED, *topics))
