"""Facts about the current state of the box: hot store, archive, programs, disk."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from api.latest.representation import newest_of
from api.status.redis_facts import Backup, Courier, Disk, Programs, Refusals, Server, ShardFacts, shard_of
from telemetry.archive.table import Archive
from telemetry.hot_store import corruption
from telemetry.hot_store.entry_codec import decode_latest
from telemetry.hot_store.shard import Shard
from telemetry.model.record import LATEST_US
from telemetry.model.utc import TimeText, iso

NEWEST_DEVICES = 20
NEWEST_DAYS = 14
LATEST_MS = LATEST_US // 1_000
"""Maximum plausible time of `last_seen`; later times come from a value in Redis that cannot be decoded."""

SPANS_MS = (300_000, 3_600_000, 86_400_000)
"""Time spans of `devices_seen_…`."""

# The hot store ---------------------------------------------------------------------------------------


class DeviceFacts(Struct, frozen=True):
    """A device and its newest record. The position may come from an earlier record."""

    device_id: str
    last_seen: TimeText
    last_seen_age_s: float
    timestamp: TimeText | None = None
    transport: str | None = None
    source: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    location: str | None = None
    speed_kmh: float | None = None


class Store(Struct, frozen=True):
    """The hot store: unsaved records and recently seen devices."""

    devices: int
    devices_seen_5_min: int
    devices_seen_1_h: int
    devices_seen_24_h: int
    unsaved_records: int
    oldest_unsaved_age_s: float | None
    newest_arrival: TimeText | None
    shards: list[ShardFacts]
    newest_devices: list[DeviceFacts]

    @property
    def newest_ms(self) -> int:
        """`newest_arrival` in ms since epoch; 0 if there is none."""
        return round(datetime.fromisoformat(self.newest_arrival).timestamp() * 1_000) if self.newest_arrival else 0


class Seen(NamedTuple):
    """The time when a device was last seen, its id, and the number of its shard."""

    ms: int
    device: bytes
    shard: int


def store_of(shards: Sequence[Shard], now: Callable[[], int]) -> Store:
    """Facts about all shards; `now` returns ms since epoch. Raises `StoreError` if Redis cannot be used."""
    (in_5_min, in_1_h, in_24_h), newest = _seen(shards, now())
    facts = [shard_of(shard, now) for shard in shards]
    ages = [shard.oldest_unsaved_age_s for shard in facts if shard.oldest_unsaved_age_s is not None]
    arrived_ms = max(shard.newest_ms() for shard in shards)
    return Store(
        sum(shard.devices for shard in facts),
        in_5_min,
        in_1_h,
        in_24_h,
        sum(shard.unsaved_records for shard in facts),
        max(ages, default=None),
        iso(arrived_ms * 1_000) if arrived_ms else None,
        facts,
        _devices(shards, newest, now()),
    )


def _seen(shards: Sequence[Shard], now_ms: int) -> tuple[list[int], list[Seen]]:
    within = [0] * len(SPANS_MS)
    newest: list[Seen] = []
    for shard in shards:
        for piece in shard.seen():
            for at, span_ms in enumerate(SPANS_MS):
                within[at] += sum(ms > now_ms - span_ms for _, ms in piece)
            newest = heapq.nlargest(NEWEST_DEVICES, (*newest, *(Seen(ms, name, shard.shard) for name, ms in piece)))
    return within, sorted(newest, key=lambda seen: (-seen.ms, seen.device))


def _devices(shards: Sequence[Shard], newest: Sequence[Seen], now_ms: int) -> list[DeviceFacts]:
    latest: dict[bytes, bytes | None] = {}
    for shard in shards:
        of_shard = [seen.device for seen in newest if seen.shard == shard.shard]
        latest.update(zip(of_shard, shard.latest(of_shard), strict=True))
    devices = (_device(seen, latest[seen.device], now_ms) for seen in newest if seen.ms <= LATEST_MS)
    return [device for device in devices if device is not None]


def _device(seen: Seen, latest: bytes | None, now_ms: int) -> DeviceFacts | None:
    """None for a device that was deleted meanwhile. Without its newest record if that cannot be decoded."""
    if latest is None:
        return None
    device = DeviceFacts(seen.device.decode(), iso(seen.ms * 1_000), (now_ms - seen.ms) / 1_000)
    try:
        return msgspec.structs.replace(device, **_newest(device.device_id, latest))
    except corruption.ERRORS as error:
        corruption.skip("latest", device.device_id, error)
        return device


def _newest(device_id: str, latest: bytes) -> dict[str, Any]:
    """Fields of a device's newest record. Raises the decoder's errors."""
    decoded = decode_latest(latest)
    record = newest_of(device_id, decoded).stored(device_id).record
    fields: dict[str, Any] = {name: getattr(record, name) for name in ("transport", "source", "location", "speed_kmh")}
    fields["timestamp"] = iso(record.timestamp_us)
    if decoded.position is not None:
        where = decoded.position.stored(device_id).record
        fields |= {"latitude": where.latitude, "longitude": where.longitude}
    return fields


# The archive -----------------------------------------------------------------------------------------


class DayFacts(Struct, frozen=True):
    """Files, records and bytes of a day in the archive."""

    day: date
    files: int
    records: int
    file_bytes: int


class Files(Struct, frozen=True):
    """The archive. `archive_version` is null if there is no archive."""

    saved_records: int = 0
    files: int = 0
    file_bytes: int = 0
    days: int = 0
    oldest_day: date | None = None
    newest_day: date | None = None
    newest_days: list[DayFacts] = []
    archive_version: int | None = None
    last_commit: TimeText | None = None
    last_commit_age_s: float | None = None


def files_of(archive: Archive, now: Callable[[], int]) -> Files:
    """Facts about the archive; `now` returns µs since epoch. Raises one of `READ_ERRORS` if it cannot be read."""
    table = archive.open_existing()
    if table is None:
        return Files()
    days = [DayFacts(*day) for day in archive.days(table)]
    changed_us = archive.changed_us(table)
    return Files(
        sum(day.records for day in days),
        sum(day.files for day in days),
        sum(day.file_bytes for day in days),
        len(days),
        days[0].day if days else None,
        days[-1].day if days else None,
        days[: -NEWEST_DAYS - 1 : -1],
        table.version(),
        None if changed_us is None else iso(changed_us),
        None if changed_us is None else round((now() - changed_us) / 1_000_000, 3),
    )


# All of it -------------------------------------------------------------------------------------------


class Facts(NamedTuple):
    """All facts. An unknown part is a text with the reason instead."""

    reasons: list[str]
    clock_problem: str | None
    version: str
    made_at: TimeText
    store: Store | str
    files: Files | str
    server: Server | str
    programs: Programs | str
    refusals: Refusals | str
    disk: Disk | str
    courier: Courier | str
    backup: Backup | str

    @property
    def status(self) -> str:
        return "not ready" if self.reasons else "ready"

    def flat(self) -> dict[str, object]:
        """One dict with all facts. Unknown ones are null, and `unknown` has the reasons."""
        facts: dict[str, object] = {"status": self.status, **self._asdict()}
        parts = [(kind_of, facts.pop(name)) for name, kind_of in PARTS.items()]
        for kind_of, part in parts:
            facts |= (
                msgspec.structs.asdict(part) if isinstance(part, Struct) else dict.fromkeys(kind_of.__struct_fields__)
            )
        return {**facts, "unknown": list(dict.fromkeys(part for _, part in parts if isinstance(part, str)))}


PARTS: dict[str, type[Struct]] = {
    "store": Store,
    "files": Files,
    "server": Server,
    "programs": Programs,
    "refusals": Refusals,
    "disk": Disk,
    "courier": Courier,
    "backup": Backup,
}
"""The parts of `Facts`."""
