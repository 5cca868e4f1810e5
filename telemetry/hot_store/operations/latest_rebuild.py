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
    """Whether latest lacks what the archive knows."""
    return bool(translated(lambda: shard.client.hget(shard.keys.store, "rebuild")) == b"1")


def deleted_devices(shard: Shard) -> int:
    """How many devices were ever deleted: who looks for records in files asks first (`offer_archived`)."""
    return int(translated(lambda: shard.client.hget(shard.keys.store, "deleted")) or 0)


def offer_archived(shard: Shard, found: Sequence[Archived], deleted: int) -> None:
    """Make records of the archive their devices' latest where they are newer than what is there.

    Raises `PlanOutdated`, and takes none, if another device was deleted since there were `deleted`.
    """
    args: list[str | bytes | int] = [shard.store_id, deleted]
    for (device, record_id, received_ms, record), flags, seen_ms in found:
        args += (device, record_id, received_ms, record.timestamp_us, flags, encode(record), seen_ms)
    keys = [shard.keys.store, shard.keys.latest, shard.keys.devices, shard.keys.deleting]
    if shard.call("offer_archived", keys, args) < 0:
        raise PlanOutdated("cannot tell latest what files hold: a device was deleted meanwhile")


def note_erased(shard: Shard) -> None:
    """Have whoever looked for records in the archive's files before look again (`offer_archived`)."""
    shard.call("note_erased", [shard.keys.store], [shard.store_id])


def last_entry(shard: Shard, device_id: str) -> bytes:
    """The id of the last entry that a device's stream ever had; empty if it has no stream."""
    try:
        found: bytes = shard.client.xinfo_stream(shard.keys.stream(device_id))["last-generated-id"]
        return found
    except redis.ResponseError:  # no such key
        return b""


def replace_latest(shard: Shard, device_id: str, latest: bytes, last_entry: bytes, found: Sequence[Archived]) -> bool:
    """Make a device's latest of these records, if it still is `latest` and its stream has no entry after
    `last_entry`; without records the device goes. Returns whether it was."""
    args: list[str | bytes | int] = [shard.store_id, device_id, latest, last_entry]
    for (_, record_id, received_ms, record), flags, seen_ms in found:
        args += (record_id, received_ms, record.timestamp_us, flags, encode(record), seen_ms)
    keys = [shard.keys.store, shard.keys.latest, shard.keys.devices, shard.keys.stream(device_id)]
    return bool(shard.call("replace_latest", keys, args))


def mark_outdated(shard: Shard) -> None:
    """Note that latest lacks what the archive knows."""
    shard.call("outdated", [shard.keys.store], [shard.store_id])


def mark_rebuilt(shard: Shard) -> None:
    """Note that latest knows what the archive knows."""
    shard.call("rebuilt", [shard.keys.store], [shard.store_id])
