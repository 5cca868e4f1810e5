"""Appending records to a shard (lua/append.lua), and the limits that an append keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import hiredis

from telemetry.hot_store.entry_codec import Entry, without
from telemetry.hot_store.function_library import function_name
from telemetry.hot_store.operations.quarantine import QuarantineCounts
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shard

NO_PREFIX: Mapping[str, int] = {}

SENDER_KEPT_MS = 30 * 86_400_000
"""How long a sender's last number is remembered: longer than any device is out of reach with a batch unanswered."""

STORED, SEEN, OTHER_BODY, KEYS_FULL, SENDERS_FULL, APART, SHARE_FULL = range(7)
"""What `append` answers for each batch."""


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


class LimitUsage(NamedTuple):
    """How full a shard is: what each of its limits counts."""

    devices: int
    names: int
    senders: int
    quarantine_bytes: int
    quarantine: QuarantineCounts


def append_batches(
    shard: Shard,
    batches: Sequence[Batch],
    limits: Limits,
    is_whole: bool = False,
    prefixes: Mapping[str, int] = NO_PREFIX,
) -> Appended:
    """Store batches, ids allotted and `latest` set, in one call that is durable when it returns.

    With `is_whole` all of them or none: the others are `APART` if one may not be stored. `prefixes` are those that
    may have so many devices. Raises `DevicesFull` and stores nothing if there would be too many devices.
    Of an entry of which some records repeat others, the call stores nothing, and is made again without them.
    """
    dropped = 0
    while True:
        found = Appended(*shard.call("append", *_append_words(shard, batches, limits, is_whole, prefixes)))
        if not found.repeats:
            return found._replace(resent=found.resent + dropped)
        dropped += len(found.repeats) // 3
        batches = without_repeats(batches, found.repeats)


def packed_append(
    shard: Shard,
    batches: Sequence[Batch],
    limits: Limits,
    is_whole: bool = False,
    prefixes: Mapping[str, int] = NO_PREFIX,
) -> bytes:
    """The same call as bytes for a connection to Redis; its answer is that of `Appended`."""
    keys, args = _append_words(shard, batches, limits, is_whole, prefixes)
    # hiredis's stubs lack tuples of any length
    words: Any = ("FCALL", function_name("append"), len(keys), *keys, *args)
    packed: bytes = hiredis.pack_command(words)
    return packed


def _append_words(
    shard: Shard, batches: Sequence[Batch], limits: Limits, is_whole: bool, prefixes: Mapping[str, int]
) -> tuple[list[str], list[str | bytes | int]]:
    k = shard.keys
    keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id, k.sent_until, k.senders, k.senders_seen]
    keys.append(k.recent)
    args: list[str | bytes | int] = [shard.store_id, *limits, int(is_whole), len(batches)]
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


def require_writable(shard: Shard) -> None:
    """Raise what an append would raise now; nothing is stored."""
    append_batches(shard, (), Limits())


def limit_usage(shard: Shard) -> LimitUsage:
    """What the shard holds of what is bounded. Names whose time is over count until the next one comes."""
    pipe = shard.client.pipeline(transaction=False)
    for key in (shard.keys.devices, shard.keys.sent_until, shard.keys.senders_seen):
        pipe.zcard(key)
    pipe.hmget(shard.keys.quarantine_state, ("bytes", *QuarantineCounts._fields))
    devices, names, senders, state = translated(pipe.execute)
    size, *counts = (int(value or 0) for value in state)
    return LimitUsage(devices, names, senders, size, QuarantineCounts(*counts))
