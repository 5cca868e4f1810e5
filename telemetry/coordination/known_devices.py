"""The devices that a port with `known_devices_only` takes: those with records, and those that people made known.

A device with records is in its shard (shard.py); while `latest` there is being rebuilt from the archive, nobody can
tell who has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import redis

from telemetry.coordination.shared_state import KNOWN_DEVICES
from telemetry.hot_store.shard import Keys, shard_of, translated
from telemetry.model.errors import StoreUnavailable

READ_DEVICES = 1_000
"""Ids read at once."""


def are_known(client: redis.Redis, shards: int, devices: Sequence[str]) -> list[bool]:
    """Which devices have records, or were made known. Raises `StoreError`, `BusyError`."""
    if not devices:
        return []
    by_shard: dict[int, list[int]] = {}
    for place, device_id in enumerate(devices):
        by_shard.setdefault(shard_of(device_id, shards), []).append(place)
    pipe = client.pipeline(transaction=False)
    pipe.smismember(KNOWN_DEVICES, list(devices))
    for shard, places in by_shard.items():
        pipe.hget(Keys(shard).store, "rebuild")
        pipe.zmscore(Keys(shard).devices, [devices[place] for place in places])
    added, *of_shards = translated(pipe.execute)
    known = [bool(one) for one in added]
    for places, rebuild, scores in zip(by_shard.values(), of_shards[::2], of_shards[1::2], strict=True):
        for place, score in zip(places, scores, strict=True):
            known[place] = known[place] or score is not None
        if rebuild == b"1" and not all(known[place] for place in places):
            raise StoreUnavailable("cannot tell which devices are known: they are being read from the archive")
    return known


def add(client: redis.Redis, devices: Sequence[str]) -> int:
    """Make devices known. Returns how many were not in the list. Raises `StoreError`, `BusyError`."""
    return int(translated(lambda: client.sadd(KNOWN_DEVICES, *devices)))


def remove(client: redis.Redis, devices: Sequence[str]) -> int:
    """Take devices out of the list. Returns how many were in it. Raises `StoreError`, `BusyError`."""
    return int(translated(lambda: client.srem(KNOWN_DEVICES, *devices)))


def added(client: redis.Redis) -> Iterator[str]:
    """The list, in no order; a device that is added or removed meanwhile may be missing. Raises `StoreError`."""
    cursor = 0
    while True:
        cursor, found = translated(lambda: client.sscan(KNOWN_DEVICES, cursor, count=READ_DEVICES))  # noqa: B023
        yield from (device.decode() for device in found)
        if cursor == 0:
            return
