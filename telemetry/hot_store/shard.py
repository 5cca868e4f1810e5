"""One shard of the hot store: the unsaved records and the latest of each of its devices.

The keys are in keys.py; the functions that change a shard are in operations/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
from redis.client import Pipeline

from telemetry.hot_store.client import raw_entries
from telemetry.hot_store.entry_codec import RawEntry, decode_intent, last_seen_ms
from telemetry.hot_store.function_library import LAYOUT, call
from telemetry.hot_store.keys import Keys
from telemetry.hot_store.response_errors import permitted, translated
from telemetry.model.errors import ConfigError, LayoutError, NotSetUp, OtherStoreError

READ_ENTRIES = 200
"""Entries of a stream per read; more would block other clients."""

READ_DIRTY = 1_000
"""Names of devices per read."""

FIRST_LATEST = 20
READ_LATEST = 500
READ_LATEST_BYTES = 2**20
"""Size of a read of latests, bytes: first a few are read to learn their size, then about this many bytes per call."""


class State(NamedTuple):
    """State of a shard's saving. `intent` is the stored bytes."""

    store_id: str
    committed: str
    intent: bytes | None
    finishing: int
    unsaved: int
    unsaved_bytes: int

    @property
    def commits(self) -> set[str]:
        """Commit numbers that the archive may have as its last: of the last finished save, and of the current one.

        Once a chunk of the current save is trimmed, only its number is valid: trimmed records are in the archive only.
        """
        if not self.intent:
            return {self.committed}
        under_way = decode_intent(self.intent).commit
        return {under_way} if self.finishing else {self.committed, under_way}


class Waiting(NamedTuple):
    """Number of unsaved records, their size in bytes (`size_bytes` of entry_codec.py), and number of their devices."""

    records: int
    size_bytes: int
    devices: int


class Flush(NamedTuple):
    """Numbers of unsaved records and bytes that trigger a save."""

    records: int
    size_bytes: int

    def is_reached(self, waiting: Waiting) -> bool:
        """True if one of them is reached."""
        return waiting.records >= self.records or waiting.size_bytes >= self.size_bytes


class Standing(NamedTuple):
    """A shard's state, and values that show whether streams read earlier have changed.

    While `streams` is the same, entries are only appended to each stream, and removed only by the intent in the
    state. While `next_id` is the same, none was appended. See docs/decisions/0028-remembered-tail.md.
    """

    state: State
    streams: tuple[object, ...]
    next_id: int

    def goes_on_as(self, later: Standing) -> bool:
        """True if entries read with this are still valid, except those that the intent of `later` has removed."""
        return self.streams == later.streams and self.next_id <= later.next_id


class Shape(NamedTuple):
    """Identity of a store: its random id, the version of its layout, and its number of shards."""

    store_id: str
    layout: int
    shards: int


class Shard:
    """One shard of the hot store through a synchronous client.

    Raises `StoreUnavailable` if Redis is not reachable, `OtherStoreError` if the store's id is not
    `store_id`, `BusyError` if Redis is at its memory limit.
    """

    def __init__(self, client: redis.Redis, shard: int, store_id: str, shards: int) -> None:
        self.client = client
        self.shard = shard
        self.shards = shards
        self.store_id = store_id
        self.keys = Keys(shard)

    def trouble(self) -> str:
        """Why the last save failed; empty if none did."""
        reason = translated(lambda: self.client.hget(self.keys.store, "trouble"))
        return (reason or b"").decode()

    def state(self) -> State:
        """All values needed by a save or a snapshot, read in one call. Raises `OtherStoreError`."""
        store, values = translated(self._state_pipeline().execute)
        return self._state(store, values)

    def state_and_entries(self, device_id: str, count: int) -> tuple[State, list[RawEntry]]:
        """The state and the first `count` entries of a device, read in one call; raises the same."""
        pipe = self._state_pipeline()
        pipe.xrange(self.keys.stream(device_id), count=count)
        store, values, entries = translated(pipe.execute)
        return self._state(store, values), entries

    def standing(self) -> Standing:
        """The state for callers that cache streams; raises the same errors as `state`."""
        k = self.keys
        pipe = self.client.pipeline(transaction=True)
        pipe.hmget(k.store, "id", "unsaved_bytes", "deleted")
        pipe.mget(k.committed, k.intent, k.finishing, k.unsaved)
        pipe.get(k.next_id)
        pipe.hgetall(k.deleting)
        pipe.info("server")
        (store_id, unsaved_bytes, deleted), values, next_id, deleting, server = translated(pipe.execute)
        state = self._state((store_id, unsaved_bytes), values)
        return Standing(state, (server["run_id"], store_id, state.committed, deleted, deleting), int(next_id or 0))

    def _state_pipeline(self) -> Pipeline:
        """A transaction whose first two responses are the arguments of `_state`."""
        k = self.keys
        pipe = self.client.pipeline(transaction=True)
        pipe.hmget(k.store, "id", "unsaved_bytes")
        pipe.mget(k.committed, k.intent, k.finishing, k.unsaved)
        return pipe

    def _state(self, store: Sequence[bytes | None], values: Sequence[bytes | None]) -> State:
        store_id, unsaved_bytes = store
        if store_id is None or store_id.decode() != self.store_id:
            raise OtherStoreError("cannot use Redis: its store is not the one from the start of this program")
        committed, intent, finishing, unsaved = values
        waiting = int(unsaved or 0), int(unsaved_bytes or 0)
        return State(self.store_id, (committed or b"").decode(), intent, int(finishing or 0), *waiting)

    def unsaved(self) -> int:
        """Number of unsaved records."""
        return int(translated(lambda: self.client.get(self.keys.unsaved)) or 0)

    def waiting(self) -> Waiting:
        """Number and size of unsaved records."""
        pipe = self.client.pipeline(transaction=False)
        pipe.get(self.keys.unsaved)
        pipe.hget(self.keys.store, "unsaved_bytes")
        pipe.zcard(self.keys.dirty)
        return Waiting(*(int(number or 0) for number in translated(pipe.execute)))

    def sizes_bytes(self, devices: Sequence[str]) -> list[int]:
        """Approximate size of each device's stream, bytes, slightly more than `size_bytes` of its entries.

        Raises `PermissionError` if this Redis has the users of an older release.
        """
        pipe = self.client.pipeline(transaction=False)
        for device_id in devices:
            pipe.memory_usage(self.keys.stream(device_id), samples=0)
        return [size or 0 for size in translated(lambda: permitted(pipe.execute))]

    def dirty(self, start: int, count: int) -> list[str]:
        """Devices with unsaved records, longest waiting first, from index `start` on."""
        devices = translated(lambda: self.client.zrange(self.keys.dirty, start, start + count - 1))
        return [device.decode() for device in devices]

    def newest_ms(self) -> int:
        """The greatest value of the box's clock at an arrival, ms since epoch; 0 without arrivals.

        After a day below it, the clock is trusted again; then its last value.
        """
        return int(translated(lambda: self.client.hget(self.keys.store, "newest_ms")) or 0)

    def newest_waiting_ms(self) -> int:
        """The greatest of all devices' oldest unsaved arrivals, ms since epoch; 0 without unsaved records.

        It may be ahead of the clock: after the clock ran ahead, the ids of a stream continue from there.
        """
        scores = translated(lambda: self.client.zrange(self.keys.dirty, -1, -1, withscores=True))
        return int(scores[0][1]) if scores else 0

    def oldest_unsaved_ms(self) -> int | None:
        """Arrival of the oldest unsaved record, ms since epoch; None without one."""
        scores = translated(lambda: self.client.zrange(self.keys.dirty, 0, 0, withscores=True))
        return int(scores[0][1]) if scores else None

    def devices(self) -> int:
        """Number of known devices."""
        return int(translated(lambda: self.client.hlen(self.keys.latest)))

    def seen(self) -> Iterator[list[tuple[bytes, int]]]:
        """Each device and the time it was last seen, ms since epoch, in pieces between which Redis serves other
        clients.

        Every device is returned, rarely one twice: the hash shrinks only when devices are deleted.
        """
        for latests in self.all_latest():
            yield [(device, last_seen_ms(latest)) for device, latest in latests.items()]

    def all_latest(self) -> Iterator[dict[bytes, bytes]]:
        """Each device and its encoded latest, in pieces between which Redis serves other clients."""
        cursor, count = 0, FIRST_LATEST
        while True:
            cursor, latests = self._scan_latest(cursor, count)
            yield latests
            if cursor == 0:
                return
            mean_bytes = sum(map(len, latests.values())) // max(len(latests), 1) + 1
            count = min(READ_LATEST, READ_LATEST_BYTES // mean_bytes + 1)

    def _scan_latest(self, cursor: int, count: int) -> tuple[int, dict[bytes, bytes]]:
        return translated(lambda: self.client.hscan(self.keys.latest, cursor, count=count))  # type: ignore[no-any-return]

    def latest(self, devices: Sequence[bytes]) -> list[bytes | None]:
        """The encoded latest of each device, None if it is unknown."""
        if not devices:
            return []
        return translated(lambda: self.client.hmget(self.keys.latest, devices))  # type: ignore[no-any-return]

    def all_dirty(self) -> list[str]:
        """All devices with unsaved records. Unlike pages of `dirty`, it misses none while others are trimmed."""
        devices: Iterable[bytes] = translated(lambda: self.client.zrange(self.keys.dirty, 0, READ_DIRTY))
        if len(devices) > READ_DIRTY:  # type: ignore[arg-type]
            devices = translated(
                lambda: {name for name, _ in self.client.zscan_iter(self.keys.dirty, count=READ_DIRTY)}
            )
        return [device.decode() for device in devices]

    def entries(self, wanted: Sequence[tuple[str, str, str]], count: int | None = None) -> list[list[RawEntry]]:
        """For each (device, first, last) the stream entries in this range, at most `count` of each."""
        pipe = self.client.pipeline(transaction=False)
        for device_id, first, last in wanted:
            pipe.xrange(self.keys.stream(device_id), first, last, count)
        return translated(pipe.execute)  # type: ignore[no-any-return]

    def strangers(self, devices: Sequence[str]) -> int:
        """Number of these devices that are not known yet."""
        unknown = 0
        for at in range(0, len(devices), READ_LATEST):
            piece = list(devices[at : at + READ_LATEST])
            scores = translated(lambda: self.client.zmscore(self.keys.devices, piece))  # noqa: B023 (called at once)
            unknown += scores.count(None)
        return unknown

    def call(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Call a function of the library."""
        return translated(lambda: call(self.client, name, keys, args))


def shape(client: redis.Redis, shard: int) -> Shape | None:
    """Identity of the shard's store, or None if it is not set up."""
    fields = translated(lambda: client.hmget(Keys(shard).store, "id", "layout", "shards"))
    return _shape(fields) if fields[0] is not None else None


def attach(client: redis.Redis, shards: int) -> list[Shard]:
    """All shards of an existing store.

    Raises `NotSetUp` if it does not exist, `ConfigError` if its layout or number of shards differs.
    """
    attached = []
    for number in range(shards):
        is_ = shape(client, number)
        if is_ is None:
            raise NotSetUp("the store is not set up yet; the worker does that within seconds")
        check_shape(is_, shards)
        attached.append(Shard(client, number, is_.store_id, shards))
    return attached


@contextmanager
def pinned(client: redis.Redis, shards: int) -> Iterator[list[Shard]]:
    """All shards over one connection that is never replaced.

    All reads are from one run of Redis: if it ends, and perhaps an older copy takes its place, the next read raises
    `StoreUnavailable`.
    """
    with translated(client.client) as connection:
        raw_entries(connection)
        yield attach(connection, shards)


def check_shape(stored: Shape, shards: int) -> None:
    """Raise `ConfigError` unless this program can use the store."""
    require_known(stored)
    if stored.layout < LAYOUT:
        raise NotSetUp(f"the store has layout {stored.layout}; the worker upgrades it to {LAYOUT} within seconds")
    if stored.shards != shards:
        raise ConfigError(
            f"cannot use this store with redis.shards = {shards}: it was made with {stored.shards}, which is fixed"
        )


def require_known(stored: Shape) -> None:
    """Raise `LayoutError` if a newer release made or upgraded the store."""
    if stored.layout > LAYOUT:
        raise LayoutError("the store in Redis", stored.layout, LAYOUT)


def _shape(stored: Sequence[bytes]) -> Shape:
    store_id, layout, shards = (value.decode() for value in stored)
    return Shape(store_id, int(layout), int(shards))
