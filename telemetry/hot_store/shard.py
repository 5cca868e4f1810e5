"""The hot store: the not-yet-saved tail and the latest of each device, in Redis.

This file and the functions in `lua/` are all that knows the keys of shards; those of the whole box are in
shared_state.py.
Devices are spread over shards by crc32; all keys of a shard carry its hash tag, so that one function call touches one
slot. `{s}` is the shard's number.

    whimbrel:{s}:store            hash    id (random, made once), layout (1), shard, shards; rebuild: "1" while latest
                                          lacks what the archive knows; trouble: why the last save failed, until one
                                          is finished; and of the box's clock, ms since epoch: newest_ms, the greatest
                                          that it showed as records came; jumped_ms, how far it was set forward in all:
                                          less that, it is steady; while it is behind newest_ms, clock_ms, what it
                                          showed last, and behind_since_ms, since when by the steady one: after a day
                                          it is believed again; of deletions: deleted, how many devices were; rewritten,
                                          how many when the append-only file was last written anew for that; floor_ms,
                                          the greatest id, its ms, of their streams, above which new ones begin;
                                          unsaved_bytes, how many bytes the entries have that wait (`size_bytes` of
                                          entry_codec.py)
    whimbrel:{s}:stream:<device>  stream  an entry = the records of one device in one group, in order:
                                          "i" = id of the first (the others follow in steps of `shards`),
                                          "r" = msgpack array of 1 to 1,000 records (record.py),
                                          "m" = their marks (entry_codec.py), if they are stored once however often
                                          sent, "a" = ms of arrival, only where it isn't the entry id's (recovered);
                                          trimmed by the worker, only after its commit
    whimbrel:{s}:latest           hash    device → msgpack [http, other, fix, last seen ms]: the newest record
                                          by HTTP, the newest by any other transport, and the newest with a
                                          fix: 0 or 1 where it is the first or the second of these; nil where
                                          there is none; a record is [id, received ms, timestamp µs, has a fix,
                                          the record's bytes], numbers always in 8 bytes, so that Lua finds them
    whimbrel:{s}:devices          zset    all scores 0: lexicographic, for stable paging
    whimbrel:{s}:dirty            zset    device → ms of its oldest unsaved entry
    whimbrel:{s}:unsaved          string  how many records wait
    whimbrel:{s}:next_id          string  counter of ids: id = counter * shards + shard
    whimbrel:{s}:recent           hash    device → marks of its last records that were saved, the newest last
    whimbrel:{s}:sent:<key>       string  hash of the body that came with an Idempotency-Key, expiring
    whimbrel:{s}:sent_until       zset    Idempotency-Key → steady ms at which it expires, to bound their number
    whimbrel:{s}:senders          hash    sender id → number of its last batch here
    whimbrel:{s}:senders_seen     zset    sender id → steady ms of that batch, to forget it and to bound their number
    whimbrel:{s}:senders_of:<o>   zset    those senders that count towards the share of an owner (`Owner`), same scores;
                                          it expires with the last of them
    whimbrel:{s}:sent_of:<owner>  zset    the same of sent_until
    whimbrel:{s}:intent           string  msgpack [commit number, [[device, first and last entry id, records,
                                          bytes, has marks]…]]; without a device that of an import, whose records were
                                          never here
    whimbrel:{s}:allotted         zset    token of an import's batch → s since epoch at which it was allotted its ids;
                                          it goes when the import intends, or after a day
    whimbrel:{s}:finishing        string  how many chunks of the intent are trimmed
    whimbrel:{s}:committed        string  commit number of the last finished save
    whimbrel:{s}:quarantine       stream  what could not be saved: device, entry, i, reason, r
    whimbrel:{s}:quarantine_state hash    commit that last added; bytes that the stream holds; and how many were ever
                                          kept, dropped for want of room, and replayed
    whimbrel:{s}:replayed         set     ids of entries of the quarantine that were appended again: they count as gone,
                                          and go as soon as they are the oldest
    whimbrel:{s}:deleting         hash    device → its deletion that is under way: what goes, as deletions.py has it
    whimbrel:{s}:deletion:<name>  hash    how far a deletion is, and what it removed; it expires once that is done
    whimbrel:{s}:left:<name>      set     files of the archive that may hold its records until the sweep; expiring, too

Only XTRIM touches a stream, never XDEL: mixed, they corrupt its nodes. An emptied stream stays, since its
last id must not repeat; one whose device is deleted goes, and leaves that to floor_ms.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import hiredis
import redis
from redis.client import Pipeline
from redis.exceptions import NoPermissionError

from telemetry.hot_store.entry_codec import (
    LATEST_MS,
    Archived,
    Aside,
    Entry,
    Intent,
    Moved,
    RawEntry,
    Unreadable,
    behind,
    decode_intent,
    entry_id,
    entry_text,
    last_seen_ms,
    without,
)
from telemetry.hot_store.function_library import LAYOUT, call, function_name
from telemetry.model.errors import (
    BusyError,
    ConfigError,
    IntentChanged,
    LayoutError,
    NotSetUp,
    OtherStoreError,
    PlanOutdated,
    ShareFull,
    StoreError,
    StoreUnavailable,
)
from telemetry.model.record import encode

READ_ENTRIES = 200
"""Entries of a stream that are read at once: more would hold Redis up for other callers."""

READ_DIRTY = 1_000
"""Names of devices read at once."""

FIRST_LATEST = 20
READ_LATEST = 500
READ_LATEST_BYTES = 2**20
"""Latests read at once: first a few, to learn their size, then about so many bytes, 1 ms of Redis's time."""

NO_PREFIX: Mapping[str, int] = {}
NO_MARKS: Mapping[str, bytes] = {}
SHARE_RETRY_S = 300
"""When to try again after a share was full, s: it empties as names expire, not within seconds."""

SENDER_KEPT_MS = 30 * 86_400_000
"""How long a sender's last number is remembered: longer than any device is out of reach with a batch unanswered."""

STORED, SEEN, OTHER_BODY, KEYS_FULL, SENDERS_FULL, APART, SHARE_FULL = range(7)
"""What `append` answers for each batch."""


class Keys:
    """The names of one shard's keys."""

    def __init__(self, shard: int | str) -> None:
        start = f"whimbrel:{{{shard}}}:"
        self.store = f"{start}store"
        self.latest = f"{start}latest"
        self.devices = f"{start}devices"
        self.dirty = f"{start}dirty"
        self.unsaved = f"{start}unsaved"
        self.next_id = f"{start}next_id"
        self.recent = f"{start}recent"
        self.sent_until = f"{start}sent_until"
        self.senders = f"{start}senders"
        self.senders_seen = f"{start}senders_seen"
        self.intent = f"{start}intent"
        self.finishing = f"{start}finishing"
        self.allotted = f"{start}allotted"
        self.committed = f"{start}committed"
        self.quarantine = f"{start}quarantine"
        self.quarantine_state = f"{start}quarantine_state"
        self.replayed = f"{start}replayed"
        self.deleting = f"{start}deleting"
        self._start = start

    def stream(self, device_id: str) -> str:
        return f"{self._start}stream:{device_id}"

    def sent(self, key: str) -> str:
        return f"{self._start}sent:{key}"

    def senders_of(self, owner: str) -> str:
        return f"{self._start}senders_of:{owner}"

    def sent_of(self, owner: str) -> str:
        return f"{self._start}sent_of:{owner}"

    def deletion(self, name: str) -> str:
        return f"{self._start}deletion:{name}"

    def left(self, name: str) -> str:
        return f"{self._start}left:{name}"


_ANY = Keys("*")
OF_SHARDS = "whimbrel:{*}:*"
"""Pattern of all keys of all shards. Braces stand for themselves in a pattern of Redis."""

APPENDED = (
    *(_ANY.store, _ANY.stream("*"), _ANY.latest, _ANY.devices, _ANY.dirty, _ANY.unsaved, _ANY.next_id, _ANY.recent),
    *(_ANY.sent("*"), _ANY.sent_until, _ANY.senders, _ANY.senders_seen, _ANY.senders_of("*"), _ANY.sent_of("*")),
    *(_ANY.quarantine, _ANY.quarantine_state, _ANY.replayed),
)
"""Patterns of the keys that who takes records changes, of all shards: all but those of saving."""

FORGOTTEN = (_ANY.allotted, _ANY.deleting, _ANY.deletion("*"))
"""Those that asking for a deletion changes besides."""


def shard_of(name: str, shards: int) -> int:
    """The shard of a device, or the home of an Idempotency-Key."""
    return zlib.crc32(name.encode()) % shards if shards > 1 else 0


# Appending -------------------------------------------------------------------------------------------


class Owner(NamedTuple):
    """Key or address whose share of each shard's limits a request counts towards. 0 = no share of its own.

    Devices count by the `prefix` that the key is bound to.
    """

    name: str = ""
    max_senders: int = 0
    max_names: int = 0
    prefix: str = ""
    max_devices: int = 0


UNLIMITED = Owner()
"""An owner that may use all."""


class Batch(NamedTuple):
    """Entries that are stored whole or not at all.

    A named one is stored once for each name: an Idempotency-Key with the hash of its body, or, with a `number`,
    a sender's id. Of a sender's batches only one with a number above all before is stored.
    """

    entries: Sequence[Entry]
    name: str = ""
    body_hash: bytes = b""
    number: int = 0
    owner: Owner = UNLIMITED

    @property
    def share(self) -> int:
        """How many names its owner may have; 0 = as many as all."""
        return (self.owner.max_senders if self.number else self.owner.max_names) if self.name else 0


class Appended(NamedTuple):
    """What became of a call. `resent` is how many records were not stored since they repeat one of their device's last.

    `repeats` are such records of entries that have others, too, as batch, entry and record, one after the other: then
    nothing was stored.
    """

    statuses: list[int]
    newest_ms: int
    unsaved: int
    resent: int = 0
    repeats: Sequence[int] = ()


def without_repeats(batches: Sequence[Batch], repeats: Sequence[int]) -> list[Batch]:
    """Batches without the records that `Appended.repeats` says."""
    gone: dict[tuple[int, int], set[int]] = {}
    for at, entry, record in zip(repeats[::3], repeats[1::3], repeats[2::3], strict=True):
        gone.setdefault((at, entry), set()).add(record)
    kept = []
    for number, batch in enumerate(batches):
        parts = [without(one, gone.get((number, place), ())) for place, one in enumerate(batch.entries)]
        kept.append(batch._replace(entries=list(chain.from_iterable(parts))))
    return kept


class Limits(NamedTuple):
    max_devices: int = 200_000
    max_names: int = 100_000
    names_kept_ms: int = 600_000
    max_senders: int = 200_000
    sender_kept_ms: int = SENDER_KEPT_MS


# Saving ----------------------------------------------------------------------------------------------


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


NO_ENTRY = "0-0"
MAX_ASIDE_BYTES = 2**12
"""What is kept of what a collector can't use: enough to see what is wrong with it."""


class Quarantined(NamedTuple):
    """What could not be saved, and why: a record's bytes, or those of a whole entry. `entry` was its place in the
    device's stream, `first_id` the id that it, or the first of its records, was promised; 0-0 and 0 of what was never
    a record."""

    name: str
    device_id: str
    entry: str
    first_id: int
    reason: str
    raw: bytes

    @property
    def at_ms(self) -> int:
        """When it came into quarantine."""
        return entry_id(self.name)[0]

    @property
    def arrival_ms(self) -> int:
        """When it arrived at the box, as far as that can be."""
        return self.at_ms if self.was_never_a_record else min(entry_id(self.entry)[0], LATEST_MS)

    @property
    def was_never_a_record(self) -> bool:
        """True if it is what a device sent, which no record could be made of."""
        return self.entry == NO_ENTRY


class QuarantineCounts(NamedTuple):
    kept: int
    dropped: int
    replayed: int


class Fill(NamedTuple):
    """How full a shard is: what each of its limits counts."""

    devices: int
    names: int
    senders: int
    quarantine_bytes: int
    quarantine: QuarantineCounts


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

    def append(
        self, batches: Sequence[Batch], limits: Limits, is_whole: bool = False, prefixes: Mapping[str, int] = NO_PREFIX
    ) -> Appended:
        """Store batches, ids allotted and `latest` set, in one call that is durable when it returns.

        With `is_whole` all of them or none: the others are `APART` if one may not be stored. `prefixes` are those that
        may have so many devices. Raises `DevicesFull` and stores nothing if there would be too many devices.
        Of an entry of which some records repeat others, the call stores nothing, and is made again without them.
        """
        dropped = 0
        while True:
            found = Appended(*self.call("append", *self._append_words(batches, limits, is_whole, prefixes)))
            if not found.repeats:
                return found._replace(resent=found.resent + dropped)
            dropped += len(found.repeats) // 3
            batches = without_repeats(batches, found.repeats)

    def packed_append(
        self, batches: Sequence[Batch], limits: Limits, is_whole: bool = False, prefixes: Mapping[str, int] = NO_PREFIX
    ) -> bytes:
        """The same call as bytes for a connection to Redis; its answer is that of `Appended`."""
        keys, args = self._append_words(batches, limits, is_whole, prefixes)
        # hiredis's stubs lack tuples of any length
        words: Any = ("FCALL", function_name("append"), len(keys), *keys, *args)
        packed: bytes = hiredis.pack_command(words)
        return packed

    def _append_words(
        self, batches: Sequence[Batch], limits: Limits, is_whole: bool, prefixes: Mapping[str, int]
    ) -> tuple[list[str], list[str | bytes | int]]:
        k = self.keys
        keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id, k.sent_until, k.senders, k.senders_seen]
        keys.append(k.recent)
        args: list[str | bytes | int] = [self.store_id, *limits, int(is_whole), len(batches)]
        stream = k.stream("")
        for batch in batches:
            args += (batch.name, batch.body_hash, batch.number, batch.share, len(batch.entries))
            if batch.name and not batch.number:
                keys.append(k.sent(batch.name))
            if batch.share:
                owner = batch.owner.name
                keys.append(k.senders_of(owner) if batch.number else k.sent_of(owner))
            keys += [stream + entry.device_id for entry in batch.entries]
            args += chain.from_iterable(batch.entries)
        args += chain.from_iterable(prefixes.items())
        return keys, args

    def require_writable(self) -> None:
        """Raise what an append would raise now; nothing is stored."""
        self.append((), Limits())

    def note_trouble(self, why: str) -> None:
        """Keep why a save failed, for people to see, until one is finished."""
        self.call("note_trouble", [self.keys.store], [self.store_id, why])

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

    def intend(self, committed: str, intent: bytes) -> bool:
        """Guard 1: write the intent only if there is none and `committed` has not moved."""
        k = self.keys
        return bool(
            self.call("intend", [k.store, k.intent, k.committed, k.finishing], [self.store_id, committed, intent])
        )

    def allot(self, count: int, token: str) -> int:
        """Ids for `count` records that won't rest here: the first, the others follow in steps of `shards`."""
        k = self.keys
        return int(self.call("allot", [k.store, k.next_id, k.allotted], [self.store_id, count, token]))

    def intend_allotted(self, committed: str, intent: bytes, token: str) -> bool:
        """`intend` for records whose ids were allotted under `token`.

        Raises `IntentChanged` if Redis knows nothing of that: it may give the ids to others, or a device was deleted.
        """
        k = self.keys
        keys = [k.store, k.intent, k.committed, k.finishing, k.allotted]
        written = self.call("intend_allotted", keys, [self.store_id, committed, intent, token])
        if written < 0:
            raise IntentChanged(
                "cannot use the ids that were allotted: Redis was restored, or a device deleted, meanwhile"
            )
        return bool(written)

    def strangers(self, devices: Sequence[str]) -> int:
        """How many of these devices are not known yet."""
        found = 0
        for at in range(0, len(devices), READ_LATEST):
            part = list(devices[at : at + READ_LATEST])
            scores = translated(lambda: self.client.zmscore(self.keys.devices, part))  # noqa: B023 (called at once)
            found += scores.count(None)
        return found

    def finish(self, intent: Intent, number: int, marks: Mapping[str, bytes] = NO_MARKS) -> None:
        """Trim chunk `number` of a committed intent. Raises `IntentChanged` (guard 4).

        `marks` are the last of what it takes, by device; Redis looks for those that the caller has not read.
        """
        k = self.keys
        keys = [k.store, k.intent, k.committed, k.finishing, k.unsaved, k.dirty, k.recent]
        last = "1" if number == intent.chunk_count - 1 else "0"
        args: list[str | bytes | int] = [self.store_id, intent.head, number, last, intent.commit]
        start = k.stream("")
        for found in intent.chunk(number):
            keys.append(start + found.device_id)
            args += (found.device_id, entry_text(behind(entry_id(found.last))), found.records, found.size_bytes)
            args.append(marks.get(found.device_id, "?") if found.is_marked else "")
        if self.call("finish", keys, args) < 0:
            raise IntentChanged("cannot trim: the intent was finished by another worker, or Redis was restored")

    def quarantine(self, intent: Intent, found: Sequence[Unreadable], max_bytes: int) -> int:
        """Keep what an intent can't save; done once for each intent. Returns how many old ones it dropped."""
        k = self.keys
        args: list[str | bytes | int] = [self.store_id, intent.head, intent.commit, max_bytes]
        for one in found:
            args += (one.device_id, one.entry, one.first_id + one.number * self.shards, one.reason, one.raw)
        keys = [k.store, k.intent, k.quarantine, k.quarantine_state, k.replayed]
        dropped = self.call("quarantine", keys, args)
        if dropped < 0:
            raise IntentChanged("cannot quarantine: the intent was finished by another worker, or Redis was restored")
        return int(dropped)

    def set_aside(self, found: Sequence[Aside], max_bytes: int) -> int:
        """Keep what a collector could not make a record of. Returns how many old ones that dropped."""
        k = self.keys
        args: list[str | bytes | int] = [self.store_id, max_bytes]
        for one in found:
            args += (one.device_id, NO_ENTRY, 0, one.reason, one.raw[:MAX_ASIDE_BYTES])
        return int(self.call("set_aside", [k.store, k.quarantine, k.quarantine_state, k.replayed], args))

    def quarantined(self) -> Iterator[Quarantined]:
        """What is in quarantine, the oldest first, read in pieces between which Redis serves others."""
        start = "-"
        while page := self._quarantine_page(start):
            replayed = self._are_replayed([name for name, _ in page])
            yield from (_quarantined(raw) for raw, is_gone in zip(page, replayed, strict=True) if not is_gone)
            start = entry_text(behind(entry_id(page[-1][0])))

    def _quarantine_page(self, start: str) -> list[RawEntry]:
        return translated(lambda: self.client.xrange(self.keys.quarantine, start, "+", READ_ENTRIES))  # type: ignore[no-any-return]

    def _are_replayed(self, names: list[bytes]) -> list[int]:
        return translated(lambda: self.client.smismember(self.keys.replayed, names))  # type: ignore[no-any-return]

    def quarantine_counts(self) -> QuarantineCounts:
        """How many were ever kept in quarantine, dropped from it, and replayed."""
        found = translated(lambda: self.client.hmget(self.keys.quarantine_state, QuarantineCounts._fields))
        return QuarantineCounts(*(int(value or 0) for value in found))

    def fill(self) -> Fill:
        """What the shard holds of what is bounded. Names whose time is over count until the next one comes."""
        pipe = self.client.pipeline(transaction=False)
        for key in (self.keys.devices, self.keys.sent_until, self.keys.senders_seen):
            pipe.zcard(key)
        pipe.hmget(self.keys.quarantine_state, ("bytes", *QuarantineCounts._fields))
        devices, names, senders, state = translated(pipe.execute)
        size, *counts = (int(value or 0) for value in state)
        return Fill(devices, names, senders, size, QuarantineCounts(*counts))

    def replay(self, one: Quarantined, entry: Entry) -> bool:
        """Append `entry` in place of what was in quarantine, both in one. False if it isn't there any more.

        It gets new ids and keeps its time of arrival.
        """
        k = self.keys
        keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id]
        keys += [k.quarantine, k.quarantine_state, k.replayed, k.stream(entry.device_id), k.deleting]
        args: list[str | bytes | int] = [self.store_id, one.name, entry.device_id, one.arrival_ms, *entry[1:4]]
        return bool(self.call("replay", keys, args))

    def take_over(self, new_id: str, least_next_id: int) -> None:
        """Give the store a new id, which stops all programs that know the old one, and drop its intent."""
        k = self.keys
        self.call("take_over", [k.store, k.next_id, k.intent, k.finishing], [new_id, least_next_id])
        self.store_id = new_id

    def replace(self, device_id: str, last: str, gone: int, gone_bytes: int, entries: Sequence[Moved]) -> None:
        """Put `entries` in place of a stream's entries up to `last`, which held `gone` records of so many bytes."""
        k = self.keys
        args: list[str | bytes | int] = [self.store_id, device_id, last, gone, gone_bytes]
        for entry in entries:
            args += entry
        self.call("replace", [k.store, k.stream(device_id), k.dirty, k.unsaved, k.next_id, k.latest], args)

    def reopen(self, committed: str) -> None:
        """End a recovery: saving goes on from `committed`."""
        self.call("reopen", [self.keys.store, self.keys.committed], [self.store_id, committed])

    def must_rebuild(self) -> bool:
        """Whether latest lacks what the archive knows."""
        return bool(translated(lambda: self.client.hget(self.keys.store, "rebuild")) == b"1")

    def deleted(self) -> int:
        """How many devices were ever deleted: who looks for records in files asks first (`offer_archived`)."""
        return int(translated(lambda: self.client.hget(self.keys.store, "deleted")) or 0)

    def offer_archived(self, found: Sequence[Archived], deleted: int) -> None:
        """Make records of the archive their devices' latest where they are newer than what is there.

        Raises `PlanOutdated`, and takes none, if another device was deleted since there were `deleted`.
        """
        args: list[str | bytes | int] = [self.store_id, deleted]
        for (device, record_id, received_ms, record), flags, seen_ms in found:
            args += (device, record_id, received_ms, record.timestamp_us, flags, encode(record), seen_ms)
        keys = [self.keys.store, self.keys.latest, self.keys.devices, self.keys.deleting]
        if self.call("offer_archived", keys, args) < 0:
            raise PlanOutdated("cannot tell latest what files hold: a device was deleted meanwhile")

    def note_erased(self) -> None:
        """Have whoever looked for records in the archive's files before look again (`offer_archived`)."""
        self.call("note_erased", [self.keys.store], [self.store_id])

    def last_entry(self, device_id: str) -> bytes:
        """The id of the last entry that a device's stream ever had; empty if it has no stream."""
        try:
            found: bytes = self.client.xinfo_stream(self.keys.stream(device_id))["last-generated-id"]
            return found
        except redis.ResponseError:  # no such key
            return b""

    def replace_latest(self, device_id: str, latest: bytes, last_entry: bytes, found: Sequence[Archived]) -> bool:
        """Make a device's latest of these records, if it still is `latest` and its stream has no entry after
        `last_entry`; without records the device goes. Returns whether it was."""
        args: list[str | bytes | int] = [self.store_id, device_id, latest, last_entry]
        for (_, record_id, received_ms, record), flags, seen_ms in found:
            args += (record_id, received_ms, record.timestamp_us, flags, encode(record), seen_ms)
        keys = [self.keys.store, self.keys.latest, self.keys.devices, self.keys.stream(device_id)]
        return bool(self.call("replace_latest", keys, args))

    def outdated(self) -> None:
        """Note that latest lacks what the archive knows."""
        self.call("outdated", [self.keys.store], [self.store_id])

    def rebuilt(self) -> None:
        """Note that latest knows what the archive knows."""
        self.call("rebuilt", [self.keys.store], [self.store_id])

    def call(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Call a function of the library."""
        return translated(lambda: call(self.client, name, keys, args))


def setup(client: redis.Redis, shard: int, new_id: str, shards: int, committed: str, next_id: int) -> Shape:
    """Make the shard's store unless it exists. Returns what it is."""
    k = Keys(shard)
    args: list[str | bytes | int] = [new_id, LAYOUT, shards, shard, committed, next_id]
    return _shape(translated(lambda: call(client, "setup", [k.store, k.committed, k.next_id], args)))


def upgrade(client: redis.Redis, shard: int, new_id: str) -> int | None:
    """Bring the store of an older release to this one's layout, once. Returns the layout that it had, None if none.

    What waits stays as it is: a record without the fields that came later is read all the same (record.py). From then
    on the older release refuses the store, since it would save records without what it doesn't know of; those of its
    programs that still run are stopped by the new id.
    """
    found = shape(client, shard)
    if found is None or found.layout >= LAYOUT:
        return None
    args: list[str | bytes | int] = [found.store_id, found.layout, LAYOUT, new_id]
    translated(lambda: call(client, "upgrade", [Keys(shard).store], args))
    return found.layout


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


def raw_entries(client: redis.Redis) -> None:
    """Have streams answered as Redis does: twice as fast to read as redis-py's pairs of dicts."""
    client.response_callbacks.pop("XRANGE", None)
    client.response_callbacks.pop("XREAD", None)


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


def _quarantined(raw: RawEntry) -> Quarantined:
    name, fields = raw
    device, entry, first_id, reason, kept = fields[1::2]
    return Quarantined(name.decode(), device.decode(), entry.decode(), int(first_id), reason.decode(), kept)


def _shape(found: Sequence[bytes]) -> Shape:
    store_id, layout, shards = (value.decode() for value in found)
    return Shape(store_id, int(layout), int(shards))


def permitted(ask: Callable[[], Any]) -> Any:
    """Run `ask`, raising `PermissionError` where this user may not."""
    try:
        return ask()
    except NoPermissionError as error:
        raise PermissionError(str(error)) from error


def translated(ask: Callable[[], Any]) -> Any:
    """Run `ask`, making redis-py's errors ours."""
    try:
        return ask()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(f"cannot reach Redis: {error}") from error
    except redis.OutOfMemoryError as error:
        raise BusyError("Redis is at its memory limit") from error
    except redis.ResponseError as error:
        raise _from_response(str(error)) from error


def _from_response(text: str) -> StoreError | BusyError:
    if text.startswith("OTHERSTORE"):
        return OtherStoreError("cannot use Redis: its store is another one than at the start")
    if text.startswith("DEVICESFULL"):
        return DevicesFull("collector.max_devices is reached: no new device is taken")
    if text.startswith("SHAREFULL"):
        prefix = text.partition(" ")[2]
        return DeviceShareFull(
            f"cannot add a device: those that begin with {prefix!r} have their share of collector.max_devices "
            "(limits.owner_share_percent)",
            retry_after_s=SHARE_RETRY_S,
        )
    if text.startswith("OOM"):
        return BusyError("Redis is at its memory limit")
    return StoreUnavailable(f"cannot use Redis: {text}")


class DevicesFull(BusyError):
    """The records would bring more devices than their shard takes."""


class DeviceShareFull(DevicesFull, ShareFull):
    """The records would bring more devices than the prefix of their key may have."""
