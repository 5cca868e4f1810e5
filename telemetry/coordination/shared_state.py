"""State of the box in Redis that the programs share, besides the shards.

Only this file, user_store.py (users and sessions) and known_devices.py use these keys:

    whimbrel:alive          hash     program → s since epoch of its last heartbeat
    whimbrel:refused        hash     reason → total number of rejections (rejection_counts.py)
    whimbrel:forward        hash     name → progress of a forward, JSON (`Forwarded`); expires after a day
    whimbrel:keys           hash     id → a key, JSON (api_keys.py); "version" → changes with each change but a removal
    whimbrel:used           hash     id of a key → s since epoch of its last use, recorded once a minute
    whimbrel:users          hash     name → a user, JSON (access/users.py); ":version" as above (user_store.py)
    whimbrel:sessions       hash     SHA-256 of a session's cookie, hex → the session, JSON; ":version" as above
    whimbrel:sessions:used  hash     the same id → s since epoch of its last request, at most a minute old
    whimbrel:alert          hash     name → progress of an alert, JSON (`Told`); expires after a day
    whimbrel:known_devices  set      ids added by `whimbrel devices add` (known_devices.py)
    whimbrel:sniff          zset     port → ms since epoch until which a client wants to see its frames
    whimbrel:changed        channel  ids of devices whose latest has changed, separated by zero bytes, from `append`
    whimbrel:frames:<port>  channel  each frame received on the port while a client wants to see them, JSON
    whimbrel:meters         channel  the metrics of each process, once a second (metric_reports.py); not a key
    whimbrel:box            list     samples of the box's status in the last hour, newest first, JSON
    whimbrel:backup         string   the last backup, JSON (`BackedUp`)
    whimbrel:mqtt           hash     a session at an MQTT broker → its subscriptions, JSON
    whimbrel:mqtt:stored    hash     digest of a session's topic or packet id → digest of its last stored message,
                                     at most `MAX_STORED_TOPICS` (collector/mqtt/retained_messages.py)

Each function raises `StoreUnavailable` if Redis is not reachable, `BusyError` if it is at its memory limit.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import redis
from msgspec import Struct

from telemetry.hot_store import corruption
from telemetry.hot_store.response_errors import translated
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
"""Programs that receive records."""

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
"""Roles (credentials.py) that may write a key; every role may read it, and operators' commands may write all."""

KEPT_S = 86_400
"""Time after which progress that is not updated expires, s."""

# Heartbeats ------------------------------------------------------------------------------------------

COLLECTOR, WORKER, SCHEDULER = "collector", "worker", "scheduler"
QUERY, API, COURIER = "query", "api", "courier"
"""The programs. /readyz requires heartbeats of worker and scheduler."""


def write_heartbeat(client: redis.Redis, program: str, now_s: float) -> None:
    """Write a program's heartbeat."""
    translated(lambda: client.hset(ALIVE, program, f"{now_s:.3f}"))


def heartbeats(client: redis.Redis) -> dict[str, float]:
    """Program → s since the epoch of its last heartbeat."""
    times = translated(lambda: client.hgetall(ALIVE))
    return {name.decode(): float(seen) for name, seen in times.items()}


def require_writable(client: redis.Redis) -> None:
    """Raise `StoreUnavailable` if Redis accepts no writes; writes nothing."""
    translated(lambda: client.hdel(REFUSED, ""))


# Rejections ------------------------------------------------------------------------------------------


def add_refused(client: redis.Redis, counts: Mapping[str, int]) -> None:
    """Add to the counts of rejections, all or none."""
    pipe = client.pipeline(transaction=True)
    for reason, count in counts.items():
        pipe.hincrby(REFUSED, reason, count)
    translated(pipe.execute)


def refused(client: redis.Redis) -> dict[str, int]:
    """Reason → total number of rejections."""
    counts = translated(lambda: client.hgetall(REFUSED))
    return {reason.decode(): int(count) for reason, count in sorted(counts.items())}


# Keys ------------------------------------------------------------------------------------------------

VERSION = "version"
"""Field of the version; shorter than a key's id."""


class Stamp(NamedTuple):
    """Detects changes of the keys. A removal, which a full Redis must accept, changes only their number."""

    version: bytes | None
    number: int


def add_key(client: redis.Redis, key: Key) -> bool:
    """Store a new key; False if its id exists."""
    pipe = client.pipeline(transaction=True)
    pipe.hsetnx(KEYS, key.id, msgspec.json.encode(key))
    pipe.hset(KEYS, VERSION, uuid.uuid4().hex)
    return bool(translated(pipe.execute)[0])


def change_key(client: redis.Redis, key: Key) -> None:
    """Replace a key."""
    translated(lambda: client.hset(KEYS, mapping={key.id: msgspec.json.encode(key), VERSION: uuid.uuid4().hex}))


def remove_key(client: redis.Redis, key_id: str) -> bool:
    """Remove a key and its last use; False if it does not exist."""
    is_removed = bool(translated(lambda: client.hdel(KEYS, key_id)))
    translated(lambda: client.hdel(USED, key_id))
    return is_removed


def keys(client: redis.Redis) -> dict[str, Key]:
    """Id → key."""
    return keys_since(client, None)[1] or {}


def keys_since(client: redis.Redis, known: Stamp | None) -> tuple[Stamp, dict[str, Key] | None]:
    """All keys by id, with their stamp; None for them if the stamp equals `known`.

    A key that cannot be decoded is skipped (corruption.py).
    """
    pipe = client.pipeline(transaction=True)
    pipe.hget(KEYS, VERSION)
    pipe.hlen(KEYS)
    if known == Stamp(*translated(pipe.execute)):
        return known, None
    stored = translated(lambda: client.hgetall(KEYS))
    stamp = Stamp(stored.get(VERSION.encode()), len(stored))
    fields = ((name, text) for name, text in stored.items() if name != VERSION.encode())
    return stamp, corruption.decoded("keys", fields, _decode_key)


_decode_key = msgspec.json.Decoder(Key).decode


def note_used(client: redis.Redis, key_ids: Iterable[str], now_s: int) -> None:
    """Record the last use of keys."""
    translated(lambda: client.hset(USED, mapping=dict.fromkeys(key_ids, now_s)))


def used(client: redis.Redis) -> dict[str, int]:
    """Id of a key → s since epoch of its last use; unused keys are missing."""
    times = translated(lambda: client.hgetall(USED))
    return {key_id.decode(): int(at_s) for key_id, at_s in times.items()}


# Metrics ---------------------------------------------------------------------------------------------


def publish_metrics(client: redis.Redis, report: bytes) -> None:
    """Publish the metrics of a process. They are not stored and therefore cost no fsync and no memory."""
    translated(lambda: client.publish(METERS, report))


# The courier -----------------------------------------------------------------------------------------


class ForwardProgress(Struct, frozen=True):
    """Progress of a `[[forward]]`. `version` is the last table version done, -1 without one; `behind_…` is the backlog,
    `behind_s` the age of its oldest record; times are ms since epoch, None = never; `trouble` is why it cannot
    continue, empty if it can.
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


class AlertProgress(Struct, frozen=True):
    """Progress of an `[[alert]]`: sent and pending events."""

    name: str
    url: str
    noted_ms: int
    pending_events: int = 0
    silent_devices: int = 0
    sent_events: int = 0
    last_success_ms: int | None = None
    trouble: str = ""


def note_forwards(client: redis.Redis, progress: Sequence[ForwardProgress]) -> None:
    """Store the progress of all forwards, replacing the previous ones."""
    _note(client, FORWARD, {entry.name: entry for entry in progress})


def forwards(client: redis.Redis) -> list[ForwardProgress]:
    """Last recorded progress of each forward, by name."""
    return _noted(client, FORWARD, ForwardProgress)


def note_alerts(client: redis.Redis, progress: Sequence[AlertProgress]) -> None:
    """Store the progress of all alerts, replacing the previous ones."""
    _note(client, ALERT, {entry.name: entry for entry in progress})


def alerts(client: redis.Redis) -> list[AlertProgress]:
    """Last recorded progress of each alert, by name."""
    return _noted(client, ALERT, AlertProgress)


T = TypeVar("T", ForwardProgress, AlertProgress)


def _note(client: redis.Redis, key: str, entries: Mapping[str, Struct]) -> None:
    pipe = client.pipeline(transaction=True)
    pipe.delete(key)
    for name, entry in entries.items():
        pipe.hset(key, name, msgspec.json.encode(entry))
    pipe.expire(key, KEPT_S)
    translated(pipe.execute)


def _noted(client: redis.Redis, key: str, kind: type[T]) -> list[T]:
    stored = translated(lambda: client.hgetall(key))
    return [msgspec.json.decode(text, type=kind) for _, text in sorted(stored.items())]


# Live frames -----------------------------------------------------------------------------------------


def request_frames(client: redis.Redis, port: int, now_ms: int, for_ms: int) -> None:
    """Make the collectors publish the frames of a port for `for_ms`."""

    def ask() -> None:
        with client.pipeline() as pipe:
            pipe.zadd(SNIFF, {str(port): now_ms + for_ms})
            pipe.pexpire(SNIFF, 10 * for_ms)
            pipe.execute()

    translated(ask)


def requested_ports(client: redis.Redis, now_ms: int) -> frozenset[int]:
    """Ports whose frames a client wants to see now."""
    return frozenset(int(port) for port in translated(lambda: client.zrange(SNIFF, now_ms, "+inf", byscore=True)))


def publish_frames(client: redis.Redis, frames: Sequence[tuple[int, bytes]]) -> None:
    """Publish frames, each with its port."""

    if not frames:
        return

    def publish() -> None:
        with client.pipeline(transaction=False) as pipe:
            for port, frame in frames:
                pipe.publish(f"{FRAMES}{port}", frame)
            pipe.execute()

    translated(publish)


class Frames:
    """Subscription to the frames of a port."""

    def __init__(self, client: redis.Redis, port: int) -> None:
        self._channel = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        translated(lambda: self._channel.subscribe(f"{FRAMES}{port}"))
        self.next(CONFIRMED_WITHIN_S)  # the confirmation of the subscription, not a frame

    def next(self, within_s: float) -> bytes | None:
        """The next frame, or None after the timeout."""
        message = translated(lambda: self._channel.get_message(timeout=within_s))
        return None if message is None else bytes(message["data"])

    def close(self) -> None:
        """Unsubscribe."""
        self._channel.close()


# Samples of the box's status -------------------------------------------------------------------------


def keep_sample(client: redis.Redis, sample: bytes, most: int) -> None:
    """Store a sample, and drop the oldest beyond `most`."""
    pipe = client.pipeline(transaction=True)
    pipe.lpush(BOX, sample)
    pipe.ltrim(BOX, 0, most - 1)
    translated(pipe.execute)


def samples(client: redis.Redis) -> list[bytes]:
    """All stored samples, oldest first."""
    return list(reversed(translated(lambda: client.lrange(BOX, 0, -1))))


# Backups ---------------------------------------------------------------------------------------------


class BackedUp(Struct, frozen=True):
    """The last backup: its point in time, ms since epoch, its duration, and its new bytes, which no earlier backup
    contained."""

    path: str
    made_ms: int
    took_s: float
    size_bytes: int
    new_bytes: int


def note_backup(client: redis.Redis, made: BackedUp) -> None:
    """Record a complete backup."""
    translated(lambda: client.set(BACKUP, msgspec.json.encode(made)))


def backup(client: redis.Redis) -> BackedUp | None:
    """The last recorded backup, None without one."""
    stored = translated(lambda: client.get(BACKUP))
    return None if stored is None else msgspec.json.decode(stored, type=BackedUp)


# Sessions at MQTT brokers ----------------------------------------------------------------------------

MAX_STORED_TOPICS = 500_000
"""Maximum number of fields of `whimbrel:mqtt:stored`, some 40 MB. Beyond it random ones are removed; their retained
messages may be stored a second time."""


def subscriptions(client: redis.Redis, session: str) -> frozenset[str]:
    """Topic filters that a session at a broker may have; none if none were recorded."""
    stored = translated(lambda: client.hget(MQTT, session))
    return frozenset() if stored is None else msgspec.json.decode(stored, type=frozenset[str])


def note_subscriptions(client: redis.Redis, session: str, filters: Iterable[str]) -> None:
    """Record the topic filters that a session at a broker may have from now on."""
    translated(lambda: client.hset(MQTT, session, msgspec.json.encode(sorted(filters))))


def stored_messages(client: redis.Redis, topics: Sequence[bytes]) -> list[bytes | None]:
    """Digest of the last stored message of each topic; None if there is none."""
    digests: list[bytes | None] = translated(lambda: client.hmget(MQTT_STORED, topics))
    return digests


def note_stored_messages(
    client: redis.Redis, digests: Mapping[bytes, bytes], max_topics: int = MAX_STORED_TOPICS
) -> None:
    """Record digests of the last stored messages, by topic."""
    pipe = client.pipeline(transaction=False)
    pipe.hset(MQTT_STORED, items=[field for pair in digests.items() for field in pair])
    pipe.hlen(MQTT_STORED)
    surplus = translated(pipe.execute)[1] - max_topics
    if surplus > 0:
        topics = translated(lambda: client.hrandfield(MQTT_STORED, surplus))
        translated(lambda: client.hdel(MQTT_STORED, *topics))
