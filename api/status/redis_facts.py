"""Cheap facts about the box: Redis, each shard, the programs' heartbeats, the courier, the last backup, the disk.

`/status` and `/metrics` share them. This module does not import Arrow, because the program that serves `/metrics` does
not load it.
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

STALE_S = 60
"""Maximum age of a note of the courier, which renews them every 2 s; older ones are reported as trouble."""

Noted = TypeVar("Noted", ForwardProgress, AlertProgress)

# The hot store ---------------------------------------------------------------------------------------


class ShardFacts(Struct, frozen=True):
    """Facts about one shard. `saves` is the number of finished saves, taken from the last commit's number."""

    shard: int
    devices: int
    unsaved_records: int
    oldest_unsaved_age_s: float | None
    saves: int


def shard_of(shard: Shard, now: Callable[[], int]) -> ShardFacts:
    """Facts about a shard; `now` returns ms since epoch. Raises `StoreError` if Redis cannot be used."""
    state, oldest_ms = shard.state(), shard.oldest_unsaved_ms()
    age_s = None if oldest_ms is None else (now() - oldest_ms) / 1_000
    return ShardFacts(shard.shard, shard.devices(), state.unsaved, age_s, count_of(state.committed))


# Redis, programs, courier, backup, disk --------------------------------------------------------------


class Server(Struct, frozen=True):
    """The Redis server. A null limit is no limit, a null size is unknown. `redis_started_s` is in s since epoch."""

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
    """Age of the programs' heartbeats; null if there was none."""

    worker_seen_age_s: float | None
    scheduler_seen_age_s: float | None


class Refusals(Struct, frozen=True):
    """Reason → total number of rejected requests, messages, records and connections."""

    refused: dict[str, int]


class Entries(NamedTuple):
    """The names of the settings' forwards and alerts."""

    forwards: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Entries:
        """The names in the settings."""
        return cls(tuple(one.name for one in settings.forward), tuple(one.name for one in settings.alert))


class Courier(Struct, frozen=True):
    """Progress of each forward and alert in the settings. If the courier does not report one, or no longer does, its
    `trouble` states this."""

    forwards: list[ForwardProgress]
    alerts: list[AlertProgress]


class Backup(Struct, frozen=True):
    """The last backup; null if there is none. `last_backup` is the time of the state that it contains."""

    last_backup: TimeText | None = None
    last_backup_age_s: float | None = None
    last_backup_took_s: float | None = None
    last_backup_bytes: int | None = None
    last_backup_new_bytes: int | None = None
    last_backup_path: str | None = None


class Disk(Struct, frozen=True):
    """Of the disks that the box writes to, the one with the least free space."""

    disk_bytes: int
    disk_free_bytes: int
    disk_min_free_bytes: int

    @property
    def full_percent(self) -> float:
        """Maximum usage in percent."""
        return max(0.0, 100 - 100 * self.disk_min_free_bytes / self.disk_bytes)


def server_of(client: redis.Redis) -> Server:
    """Facts about Redis, from INFO. Raises `StoreError` if it cannot be used."""
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
    """Ages of heartbeats; `now` returns ms since epoch. Raises `StoreError` if Redis cannot be used."""
    seen, now_ms = shared_state.heartbeats(client), now()
    return Programs(
        *(
            round(now_ms / 1_000 - seen[name], 3) if name in seen else None
            for name in (shared_state.WORKER, shared_state.SCHEDULER)
        )
    )


def refusals_of(client: redis.Redis) -> Refusals:
    """Rejections by reason. Raises `StoreError` if Redis cannot be used."""
    return Refusals(shared_state.refused(client))


def courier_of(client: redis.Redis, entries: Entries, now: Callable[[], int]) -> Courier:
    """The courier's last notes; `now` returns ms since epoch. Raises `StoreError` if Redis cannot be used."""
    forwards, alerts = shared_state.forwards(client), shared_state.alerts(client)
    return Courier(
        _notes(entries.forwards, forwards, lambda name: ForwardProgress(name, "", 0), now()),
        _notes(entries.alerts, alerts, lambda name: AlertProgress(name, "", 0), now()),
    )


def _notes(names: Iterable[str], noted: Sequence[Noted], empty: Callable[[str], Noted], now_ms: int) -> list[Noted]:
    """The note for each name, sorted by name. If it is stale or missing, its `trouble` states this."""
    by_name = {note.name: note for note in noted}
    notes = []
    for name in sorted(names):
        note, age_s = by_name.get(name, empty(name)), 0.0
        if note.noted_ms:
            age_s = (now_ms - note.noted_ms) / 1_000
        if not note.noted_ms:
            note = msgspec.structs.replace(note, trouble="the courier has not reported on it: see its log")
        elif abs(age_s) > STALE_S:
            note = msgspec.structs.replace(note, trouble=f"the courier has not reported for {age_s:.0f} s: see its log")
        notes.append(note)
    return notes


def backup_of(client: redis.Redis, now: Callable[[], int]) -> Backup:
    """The last backup; `now` returns ms since epoch. Raises `StoreError` if Redis cannot be used."""
    backup = shared_state.backup(client)
    if backup is None:
        return Backup()
    made, age_s = iso(backup.made_ms * 1_000), round((now() - backup.made_ms) / 1_000, 3)
    return Backup(made, age_s, backup.took_s, backup.size_bytes, backup.new_bytes, backup.path)


def disk_of(room: Room) -> Disk:
    """Facts about the disk. Raises `OSError` if it cannot be read."""
    return Disk(*room.fullest(), room.min_free_bytes)
