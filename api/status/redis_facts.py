"""Facts of the box that cost next to nothing: what Redis tells of itself and of each shard, and the disk.

`/status` and `/metrics` share them. They need no Arrow, which the program that answers `/metrics` doesn't load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import redis
from msgspec import Struct

from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.coordination.shared_state import AlertProgress, ForwardProgress
from telemetry.hot_store.client import kind
from telemetry.hot_store.entry_codec import count_of
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shard
from telemetry.model.utc import TimeText, iso
from telemetry.system.disk_space import Room

UNHEARD_S = 60
"""A note of the courier that is older says so; it renews them every 2 s."""

Noted = TypeVar("Noted", ForwardProgress, AlertProgress)

# The hot store ---------------------------------------------------------------------------------------


class ShardFacts(Struct, frozen=True):
    """One shard. `saves` is the count inside the number of its last finished save."""

    shard: int
    devices: int
    unsaved_records: int
    oldest_unsaved_age_s: float | None
    saves: int


def shard_of(shard: Shard, now: Callable[[], int]) -> ShardFacts:
    """How a shard is; `now` tells ms since epoch. Raises `StoreError` if Redis can't be asked."""
    state, oldest_ms = shard.state(), shard.oldest_unsaved_ms()
    age_s = None if oldest_ms is None else (now() - oldest_ms) / 1_000
    return ShardFacts(shard.shard, shard.devices(), state.unsaved, age_s, count_of(state.committed))


# What they stand on ----------------------------------------------------------------------------------


class Server(Struct, frozen=True):
    """Redis itself. A limit or size that is null is none. `redis_started_s` is when it began, s since epoch."""

    redis_kind: str
    redis_version: str
    redis_uptime_s: int
    redis_started_s: int
    redis_memory_bytes: int
    redis_memory_limit_bytes: int | None
    redis_aof: bool
    redis_aof_last_write: str
    redis_aof_bytes: int | None


class Programs(Struct, frozen=True):
    """How long ago programs gave a sign of life; null is never."""

    worker_seen_age_s: float | None
    scheduler_seen_age_s: float | None


class Refusals(Struct, frozen=True):
    """Reason → how many requests, messages, records and connections were ever refused for it."""

    refused: dict[str, int]


class Entries(NamedTuple):
    """The names of the settings' forwards and alerts."""

    forwards: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Entries:
        """Those of a box."""
        return cls(tuple(one.name for one in settings.forward), tuple(one.name for one in settings.alert))


class Courier(Struct, frozen=True):
    """How far each forward of the settings is, and what each receiver of events was told. The trouble of one of which
    the courier says nothing, or nothing any more, is that.
    """

    forwards: list[ForwardProgress]
    alerts: list[AlertProgress]


class Backup(Struct, frozen=True):
    """The last backup; null if none was ever made. `last_backup` is the moment that it shows."""

    last_backup: TimeText | None = None
    last_backup_age_s: float | None = None
    last_backup_took_s: float | None = None
    last_backup_bytes: int | None = None
    last_backup_new_bytes: int | None = None
    last_backup_path: str | None = None


class Disk(Struct, frozen=True):
    """The disk with the least room, of those that the box writes to."""

    disk_bytes: int
    disk_free_bytes: int
    disk_min_free_bytes: int

    @property
    def full_percent(self) -> float:
        """How much of it may be used."""
        return max(0.0, 100 - 100 * self.disk_min_free_bytes / self.disk_bytes)


def server_of(client: redis.Redis) -> Server:
    """What Redis says of itself. Raises `StoreError` if it can't be asked."""
    info = translated(client.info)
    return Server(
        *kind(info),
        info["uptime_in_seconds"],
        info["server_time_usec"] // 1_000_000 - info["uptime_in_seconds"],
        info["used_memory"],
        info["maxmemory"] or None,
        bool(info["aof_enabled"]),
        info["aof_last_write_status"],
        info.get("aof_current_size"),
    )


def programs_of(client: redis.Redis, now: Callable[[], int]) -> Programs:
    """Signs of life; `now` tells ms since epoch. Raises `StoreError` if Redis can't be asked."""
    seen, now_ms = shared_state.heartbeats(client), now()
    return Programs(
        *(
            round(now_ms / 1_000 - seen[name], 3) if name in seen else None
            for name in (shared_state.WORKER, shared_state.SCHEDULER)
        )
    )


def refusals_of(client: redis.Redis) -> Refusals:
    """What was refused, by reason. Raises `StoreError` if Redis can't be asked."""
    return Refusals(shared_state.refused(client))


def courier_of(client: redis.Redis, entries: Entries, now: Callable[[], int]) -> Courier:
    """What the courier noted last; `now` tells ms since epoch. Raises `StoreError` if Redis can't be asked."""
    forwards, alerts = shared_state.forwards(client), shared_state.alerts(client)
    return Courier(
        _said(entries.forwards, forwards, lambda name: ForwardProgress(name, "", 0), now()),
        _said(entries.alerts, alerts, lambda name: AlertProgress(name, "", 0), now()),
    )


def _said(names: Iterable[str], noted: Sequence[Noted], unheard: Callable[[str], Noted], now_ms: int) -> list[Noted]:
    """What is noted of each name, by name; of one that is stale or missing with a trouble that says so."""
    by_name = {one.name: one for one in noted}
    found = []
    for name in sorted(names):
        one, age_s = by_name.get(name, unheard(name)), 0.0
        if one.noted_ms:
            age_s = (now_ms - one.noted_ms) / 1_000
        if not one.noted_ms:
            one = msgspec.structs.replace(one, trouble="the courier has said nothing of it: see its log")
        elif abs(age_s) > UNHEARD_S:
            one = msgspec.structs.replace(one, trouble=f"the courier has said nothing for {age_s:.0f} s: see its log")
        found.append(one)
    return found


def backup_of(client: redis.Redis, now: Callable[[], int]) -> Backup:
    """The last backup; `now` tells ms since epoch. Raises `StoreError` if Redis can't be asked."""
    found = shared_state.backup(client)
    if found is None:
        return Backup()
    made, age_s = iso(found.made_ms * 1_000), round((now() - found.made_ms) / 1_000, 3)
    return Backup(made, age_s, found.took_s, found.size_bytes, found.new_bytes, found.path)


def disk_of(room: Room) -> Disk:
    """The disk. Raises `OSError` if it can't be looked at."""
    return Disk(*room.fullest(), room.min_free_bytes)
