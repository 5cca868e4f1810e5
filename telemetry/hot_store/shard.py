"""One shard of the hot store: the unsaved records and the latest of each of its devices.

The keys are in keys.py; what changes a shard is in operations/.
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
"""Entries of a stream that are read at once: more would hold Redis up for other callers."""

READ_DIRTY = 1_000
"""Names of devices read at once."""

FIRST_LATEST = 20
READ_LATEST = 500
READ_LATEST_BYTES = 2**20
"""Latests read at once: first a few, to learn their size, then about so many bytes, 1 ms of Redis's time."""


class State(NamedTuple):
    """Where a shard's saving stands. `intent` is the stored bytes."""

    store_id: str
    committed: str
    intent: bytes | None
    finishing: int
    unsaved: int
    unsaved_bytes: int

    @property
    def commits(self) -> set[str]:
        """The saves with which the archive may end: the last that was finished, and the one under way.

        Once a chunk of that is trimmed the last one will not do: part of what was taken is in the archive alone.
        """
        if not self.intent:
            return {self.committed}
        under_way = decode_intent(self.intent).commit
        return {under_way} if self.finishing else {self.committed, under_way}


class Waiting(NamedTuple):
    """How many records wait to be saved, of how many bytes (`size_bytes` of entry_codec.py) and devices."""

    records: int
    size_bytes: int
    devices: int


class Flush(NamedTuple):
    """The records and bytes of a shard that are saved at once."""

    records: int
    size_bytes: int

    def is_reached(self, waiting: Waiting) -> bool:
        """Whether so much waits."""
        return waiting.records >= self.records or waiting.size_bytes >= self.size_bytes


class Standing(NamedTuple):
    """A shard's state, and by what streams are known again that were read before.

    While `streams` is the same, entries come only behind the last of each stream, and go only as the intent in the
    state says. While `next_id` is the same, none came. docs/decisions/0028-remembered-tail.md says why.
    """

    state: State
    streams: tuple[object, ...]
    next_id: int

    def goes_on_as(self, later: Standing) -> bool:
        """Whether what was read after this still holds, as far as `later`'s intent took nothing away."""
        return self.streams == later.streams and self.next_id <= later.next_id


class Shape(NamedTuple):
    """What a store is: its random id, its layout's version, and over how many shards it is spread."""

    store_id: str
    layout: int
    shards: int


class Shard:
    """One shard of the hot store through a synchronous client.

    Raises `StoreUnavailable` if Redis can't be asked, `OtherStoreError` if the store's id isn't
    `store_id`, `BusyError` if Redis is at its limit.
    """

    def __init__(self, client: redis.Redis, shard: int, store_id: str, shards: int) -> None:
        self.client = client
        self.shard = shard
        self.shards = shards
        self.store_id = store_id
        self.keys = Keys(shard)

    def trouble(self) -> str:
        """Why the last save failed; empty if none did."""
        found = translated(lambda: self.client.hget(self.keys.store, "trouble"))
        return (found or b"").decode()

    def state(self) -> State:
        """All that a save or a snapshot must know, read at once. Raises `OtherStoreError`."""
        store, values = translated(self._asking_state().execute)
        return self._state(store, values)

    def state_and_entries(self, device_id: str, count: int) -> tuple[State, list[RawEntry]]:
        """The same, and the first `count` of a device's entries, read with it; raises the same."""
        pipe = self._asking_state()
        pipe.xrange(self.keys.stream(device_id), count=count)
        store, values, entries = translated(pipe.execute)
        return self._state(store, values), entries

    def standing(self) -> Standing:
        """The state for who remembers what streams held; raises what `state` does."""
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

    def _asking_state(self) -> Pipeline:
        """A transaction whose first two answers are what `_state` takes."""
        k = self.keys
        pipe = self.client.pipeline(transaction=True)
        pipe.hmget(k.store, "id", "unsaved_bytes")
        pipe.mget(k.committed, k.intent, k.finishing, k.unsaved)
        return pipe

    def _state(self, store: Sequence[bytes | None], values: Sequence[bytes | None]) -> State:
        store_id, unsaved_bytes = store
        if store_id is None or store_id.decode() != self.store_id:
            raise OtherStoreError("cannot use Redis: its store is another one than at the start")
        committed, intent, finishing, unsaved = values
        waiting = int(unsaved or 0), int(unsaved_bytes or 0)
        return State(self.store_id, (committed or b"").decode(), intent, int(finishing or 0), *waiting)

    def unsaved(self) -> int:
        """How many records wait to be saved."""
        return int(translated(lambda: self.client.get(self.keys.unsaved)) or 0)

    def waiting(self) -> Waiting:
        """What waits to be saved."""
        pipe = self.client.pipeline(transaction=False)
        pipe.get(self.keys.unsaved)
        pipe.hget(self.keys.store, "unsaved_bytes")
        pipe.zcard(self.keys.dirty)
        return Waiting(*(int(found or 0) for found in translated(pipe.execute)))

    def sizes_bytes(self, devices: Sequence[str]) -> list[int]:
        """About how many bytes each device's stream takes, a little more than `size_bytes` of its entries.

        Raises `PermissionError` where the users of this Redis are those of an older release.
        """
        pipe = self.client.pipeline(transaction=False)
        for device_id in devices:
            pipe.memory_usage(self.keys.stream(device_id), samples=0)
        return [found or 0 for found in translated(lambda: permitted(pipe.execute))]

    def dirty(self, start: int, count: int) -> list[str]:
        """Devices with unsaved records, the longest waiting first, from place `start` on."""
        found = translated(lambda: self.client.zrange(self.keys.dirty, start, start + count - 1))
        return [device.decode() for device in found]

    def newest_ms(self) -> int:
        """The greatest that the box's clock showed as a record arrived, ms since epoch; 0 if none ever did.

        After a day behind it, that clock counts again: then what it showed last.
        """
        return int(translated(lambda: self.client.hget(self.keys.store, "newest_ms")) or 0)

    def newest_waiting_ms(self) -> int:
        """The greatest of all devices' oldest unsaved arrivals, ms since epoch; 0 if none waits.

        It may be ahead of the clock: where that ran ahead once, the ids of a stream go on from there.
        """
        found = translated(lambda: self.client.zrange(self.keys.dirty, -1, -1, withscores=True))
        return int(found[0][1]) if found else 0

    def oldest_unsaved_ms(self) -> int | None:
        """When the oldest record that waits to be saved arrived, ms since epoch; None if none waits."""
        found = translated(lambda: self.client.zrange(self.keys.dirty, 0, 0, withscores=True))
        return int(found[0][1]) if found else None

    def devices(self) -> int:
        """How many devices are known."""
        return int(translated(lambda: self.client.hlen(self.keys.latest)))

    def seen(self) -> Iterator[list[tuple[bytes, int]]]:
        """Each device and when it was last seen, ms since epoch, in pieces between which Redis serves others.

        Redis tells of each device, and of hardly any twice: the hash shrinks only when devices are deleted.
        """
        for found in self.all_latest():
            yield [(device, last_seen_ms(latest)) for device, latest in found.items()]

    def all_latest(self) -> Iterator[dict[bytes, bytes]]:
        """Each device and its encoded latest, in pieces between which Redis serves others."""
        cursor, count = 0, FIRST_LATEST
        while True:
            cursor, found = self._scan_latest(cursor, count)
            yield found
            if cursor == 0:
                return
            mean_bytes = sum(map(len, found.values())) // max(len(found), 1) + 1
            count = min(READ_LATEST, READ_LATEST_BYTES // mean_bytes + 1)

    def _scan_latest(self, cursor: int, count: int) -> tuple[int, dict[bytes, bytes]]:
        return translated(lambda: self.client.hscan(self.keys.latest, cursor, count=count))  # type: ignore[no-any-return]

    def latest(self, devices: Sequence[bytes]) -> list[bytes | None]:
        """The encoded latest of each device, None if it is unknown."""
        if not devices:
            return []
        return translated(lambda: self.client.hmget(self.keys.latest, devices))  # type: ignore[no-any-return]

    def all_dirty(self) -> list[str]:
        """All devices with unsaved records. Unlike pages of `dirty`, none is missed while others are trimmed."""
        found: Iterable[bytes] = translated(lambda: self.client.zrange(self.keys.dirty, 0, READ_DIRTY))
        if len(found) > READ_DIRTY:  # type: ignore[arg-type]
            found = translated(lambda: {name for name, _ in self.client.zscan_iter(self.keys.dirty, count=READ_DIRTY)})
        return [device.decode() for device in found]

    def entries(self, wanted: Sequence[tuple[str, str, str]], count: int | None = None) -> list[list[RawEntry]]:
        """For each (device, first, last) the stream entries between, at most `count` of each."""
        pipe = self.client.pipeline(transaction=False)
        for device_id, first, last in wanted:
            pipe.xrange(self.keys.stream(device_id), first, last, count)
        return translated(pipe.execute)  # type: ignore[no-any-return]

    def strangers(self, devices: Sequence[str]) -> int:
        """How many of these devices are not known yet."""
        found = 0
        for at in range(0, len(devices), READ_LATEST):
            part = list(devices[at : at + READ_LATEST])
            scores = translated(lambda: self.client.zmscore(self.keys.devices, part))  # noqa: B023 (called at once)
            found += scores.count(None)
        return found

    def call(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Call a function of the library."""
        return translated(lambda: call(self.client, name, keys, args))


def shape(client: redis.Redis, shard: int) -> Shape | None:
    """What the shard's store is, or None if nobody has set it up."""
    found = translated(lambda: client.hmget(Keys(shard).store, "id", "layout", "shards"))
    return _shape(found) if found[0] is not None else None


def attach(client: redis.Redis, shards: int) -> list[Shard]:
    """All shards of a store that is set up.

    Raises `NotSetUp` if it isn't, `ConfigError` if its layout or number of shards is another.
    """
    found = []
    for number in range(shards):
        is_ = shape(client, number)
        if is_ is None:
            raise NotSetUp("the store is not set up yet; the worker does that within seconds")
        check_shape(is_, shards)
        found.append(Shard(client, number, is_.store_id, shards))
    return found


@contextmanager
def pinned(client: redis.Redis, shards: int) -> Iterator[list[Shard]]:
    """All shards over one connection that is never replaced by a new one.

    What is read through it comes from one run of Redis: if that ends, and perhaps an older copy takes its
    place, the next question raises `StoreUnavailable`.
    """
    with translated(client.client) as one:
        raw_entries(one)
        yield attach(one, shards)


def check_shape(found: Shape, shards: int) -> None:
    """Raise `ConfigError` unless this program can use the store."""
    require_known(found)
    if found.layout < LAYOUT:
        raise NotSetUp(f"the store has layout {found.layout}; the worker brings it to {LAYOUT} within seconds")
    if found.shards != shards:
        raise ConfigError(
            f"cannot use this store with redis.shards = {shards}: it was made with {found.shards}, which is fixed"
        )


def require_known(found: Shape) -> None:
    """Raise `LayoutError` if a newer release made or upgraded the store."""
    if found.layout > LAYOUT:
        raise LayoutError("the store in Redis", found.layout, LAYOUT)


def _shape(found: Sequence[bytes]) -> Shape:
    store_id, layout, shards = (value.decode() for value in found)
    return Shape(store_id, int(layout), int(shards))
