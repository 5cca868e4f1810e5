"""Rebuilding latest from the archive (lua/latest_rebuild.lua)."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from telemetry.hot_store.entry_codec import Archived
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import PlanOutdated
from telemetry.model.record import encode


def must_rebuild(shard: Shard) -> bool:
    """True if latest lacks records of the archive."""
    return bool(translated(lambda: shard.client.hget(shard.keys.store, "rebuild")) == b"1")


def deleted_devices(shard: Shard) -> int:
    """Total number of deleted devices; callers read it before they search files for records (`offer_archived`)."""
    return int(translated(lambda: shard.client.hget(shard.keys.store, "deleted")) or 0)


def offer_archived(shard: Shard, found: Sequence[Archived], deleted: int) -> None:
    """Make records of the archive their devices' latest if they are newer.

    Raises `PlanOutdated`, without changes, if another device was deleted since the count was `deleted`.
    """
    args: list[str | bytes | int] = [shard.store_id, deleted]
    for (device, record_id, received_ms, record), flags, seen_ms in found:
        args += (device, record_id, received_ms, record.timestamp_us, flags, encode(record), seen_ms)
    keys = [shard.keys.store, shard.keys.latest, shard.keys.devices, shard.keys.deleting]
    if shard.call("offer_archived", keys, args) < 0:
        raise PlanOutdated("cannot update latest from files: a device was deleted meanwhile")


def note_erased(shard: Shard) -> None:
    """Make callers that searched the archive's files before search again (`offer_archived`)."""
    shard.call("note_erased", [shard.keys.store], [shard.store_id])


def last_entry(shard: Shard, device_id: str) -> bytes:
    """Id of the last entry that a device's stream ever had; empty without a stream."""
    try:
        entry_id: bytes = shard.client.xinfo_stream(shard.keys.stream(device_id))["last-generated-id"]
        return entry_id
    except redis.ResponseError:  # no such key
        return b""


def replace_latest(shard: Shard, device_id: str, latest: bytes, last_entry: bytes, found: Sequence[Archived]) -> bool:
    """Rebuild a device's latest from these records, if it still is `latest` and its stream has no entry after
    `last_entry`; without records the device is removed. Returns True if it was changed.
    """
    args: list[str | bytes | int] = [shard.store_id, device_id, latest, last_entry]
    for (_, record_id, received_ms, record), flags, seen_ms in found:
        args += (record_id, received_ms, record.timestamp_us, flags, encode(record), seen_ms)
    keys = [shard.keys.store, shard.keys.latest, shard.keys.devices, shard.keys.stream(device_id)]
    return bool(shard.call("replace_latest", keys, args))


def mark_outdated(shard: Shard) -> None:
    """Record that latest lacks records of the archive."""
    shard.call("outdated", [shard.keys.store], [shard.store_id])


def mark_rebuilt(shard: Shard) -> None:
    """Record that latest has all records of the archive."""
    shard.call("rebuilt", [shard.keys.store], [shard.store_id])
