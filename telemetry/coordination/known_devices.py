"""Devices accepted on ports with `known_devices_only`: those with records, and those added by `whimbrel devices add`.

A shard (keys.py) knows its devices with records. While its `latest` is rebuilt from the archive, it cannot be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import redis

from telemetry.coordination.shared_state import KNOWN_DEVICES
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.hot_store.response_errors import translated
from telemetry.model.errors import StoreUnavailable

READ_DEVICES = 1_000
"""Number of ids per read."""


def are_known(client: redis.Redis, shards: int, devices: Sequence[str]) -> list[bool]:
    """True for each device that has records or was added. Raises `StoreError`, `BusyError`."""
    if not devices:
        return []
    by_shard: dict[int, list[int]] = {}
    for index, device_id in enumerate(devices):
        by_shard.setdefault(shard_of(device_id, shards), []).append(index)
    pipe = client.pipeline(transaction=False)
    pipe.smismember(KNOWN_DEVICES, list(devices))
    for shard, indexes in by_shard.items():
        pipe.hget(Keys(shard).store, "rebuild")
        pipe.zmscore(Keys(shard).devices, [devices[index] for index in indexes])
    added, *of_shards = translated(pipe.execute)
    known = [bool(score) for score in added]
    for indexes, rebuild, scores in zip(by_shard.values(), of_shards[::2], of_shards[1::2], strict=True):
        for index, score in zip(indexes, scores, strict=True):
            known[index] = known[index] or score is not None
        if rebuild == b"1" and not all(known[index] for index in indexes):
            raise StoreUnavailable("cannot check which devices are known: they are being read from the archive")
    return known


def add(client: redis.Redis, devices: Sequence[str]) -> int:
    """Add devices. Returns the number of new ones. Raises `StoreError`, `BusyError`."""
    return int(translated(lambda: client.sadd(KNOWN_DEVICES, *devices)))


def remove(client: redis.Redis, devices: Sequence[str]) -> int:
    """Remove devices. Returns the number removed. Raises `StoreError`, `BusyError`."""
    return int(translated(lambda: client.srem(KNOWN_DEVICES, *devices)))


def added(client: redis.Redis) -> Iterator[str]:
    """The added devices, unordered; a device added or removed meanwhile may be missing. Raises `StoreError`."""
    cursor = 0
    while True:
        cursor, ids = translated(lambda: client.sscan(KNOWN_DEVICES, cursor, count=READ_DEVICES))  # noqa: B023
        yield from (device.decode() for device in ids)
        if cursor == 0:
            return
