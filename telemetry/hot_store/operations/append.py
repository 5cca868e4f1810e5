"""Appending records to a shard (lua/append.lua), and the limits that an append keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import hiredis

from telemetry.hot_store.entry_codec import Entry, without
from telemetry.hot_store.function_library import function_name
from telemetry.hot_store.operations.quarantine import QuarantineCounts
from telemetry.hot_store.response_errors import OwnersNotNamed, translated
from telemetry.hot_store.shard import Shard

NO_PREFIX: Mapping[str, int] = {}

SENDER_KEPT_MS = 30 * 86_400_000
"""Time for which a sender's last number is remembered, ms: longer than any device is offline with an unacknowledged
batch."""

STORED, SEEN, OTHER_BODY, KEYS_FULL, SENDERS_FULL, APART, SHARE_FULL = range(7)
"""Results of `append` for each batch."""


class Owner(NamedTuple):
    """Key or address whose share of each shard's limits a request counts towards. 0 = no separate share.

    Devices are counted by the `prefix` that the key is bound to; without one, those that the owner has added.
    """

    name: str = ""
    max_senders: int = 0
    max_names: int = 0
    prefix: str = ""
    max_devices: int = 0


UNLIMITED = Owner()
"""An owner without a limit."""


class Bringer(NamedTuple):
    """An owner with a share of devices, and the devices whose records it sends in a call."""

    owner: Owner
    devices: Collection[str]


NO_BRINGERS: Sequence[Bringer] = ()


class Batch(NamedTuple):
    """Entries that are stored all or none.

    A named batch is stored once per name: an Idempotency-Key with the hash of its body, or, with a `number`, a
    sender's id. A sender's batch is stored only if its number is above all earlier ones.
    """

    entries: Sequence[Entry]
    name: str = ""
    body_hash: bytes = b""
    number: int = 0
    owner: Owner = UNLIMITED

    @property
    def share(self) -> int:
        """Maximum number of names of its owner; 0 = no separate limit."""
        return (self.owner.max_senders if self.number else self.owner.max_names) if self.name else 0


class Appended(NamedTuple):
    """Result of an append. `resent` is the number of records that were not stored because they repeat recent ones of
    their device.

    `repeats` lists such records in entries with other records, as batch, entry and record index: then nothing was
    stored.
    """

    statuses: list[int]
    newest_ms: int
    unsaved: int
    resent: int = 0
    repeats: Sequence[int] = ()


def without_repeats(batches: Sequence[Batch], repeats: Sequence[int]) -> list[Batch]:
    """Batches without the records in `Appended.repeats`."""
    repeated: dict[tuple[int, int], set[int]] = {}
    for at, entry, record in zip(repeats[::3], repeats[1::3], repeats[2::3], strict=True):
        repeated.setdefault((at, entry), set()).add(record)
    remaining = []
    for number, batch in enumerate(batches):
        parts = [without(entry, repeated.get((number, index), ())) for index, entry in enumerate(batch.entries)]
        remaining.append(batch._replace(entries=list(chain.from_iterable(parts))))
    return remaining


class Limits(NamedTuple):
    max_devices: int = 200_000
    max_names: int = 100_000
    names_kept_ms: int = 600_000
    max_senders: int = 200_000
    sender_kept_ms: int = SENDER_KEPT_MS


class LimitUsage(NamedTuple):
    """Usage of a shard's limits."""

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
    bringers: Callable[[], Sequence[Bringer]] | None = None,
) -> Appended:
    """Store batches, assign ids and update `latest` in one call, durable on return.

    With `is_whole` all or none are stored: the others are `APART` if one is rejected. `prefixes` are prefixes with a
    maximum number of devices. `bringers` returns the owners with a share of devices; it is called if a device is
    new. Raises `DevicesFull` without storing anything if there would be too many devices.
    If some records of an entry repeat others, nothing is stored, and the caller must append again without them.
    """
    dropped, named = 0, None if bringers else NO_BRINGERS
    while True:
        try:
            words = _append_words(shard, batches, limits, is_whole, prefixes, named)
            result = Appended(*shard.call("append", *words))
        except OwnersNotNamed:
            named = bringers() if bringers else NO_BRINGERS
            continue
        if not result.repeats:
            return result._replace(resent=result.resent + dropped)
        dropped += len(result.repeats) // 3
        batches = without_repeats(batches, result.repeats)


def packed_append(
    shard: Shard,
    batches: Sequence[Batch],
    limits: Limits,
    is_whole: bool = False,
    prefixes: Mapping[str, int] = NO_PREFIX,
    has_bringers: bool = False,
) -> bytes:
    """The same call as bytes for a connection to Redis; its response is `Appended`.

    With `has_bringers` Redis responds to a new device with an error and stores nothing.
    """
    named = None if has_bringers else NO_BRINGERS
    keys, args = _append_words(shard, batches, limits, is_whole, prefixes, named)
    # hiredis's stubs lack tuples of any length
    words: Any = ("FCALL", function_name("append"), len(keys), *keys, *args)
    packed: bytes = hiredis.pack_command(words)
    return packed


def _append_words(
    shard: Shard,
    batches: Sequence[Batch],
    limits: Limits,
    is_whole: bool,
    prefixes: Mapping[str, int],
    bringers: Sequence[Bringer] | None,
) -> tuple[list[str], list[str | bytes | int]]:
    k = shard.keys
    keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id, k.sent_until, k.senders, k.senders_seen]
    keys += [k.recent, k.added_by]
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
    args.append(-1 if bringers is None else len(bringers))
    for bringer, devices in bringers or ():
        keys.append(k.devices_of(bringer.name))
        args += (bringer.max_devices, len(devices), *devices)
    args += chain.from_iterable(prefixes.items())
    return keys, args


def require_writable(shard: Shard) -> None:
    """Raise the errors that an append would raise now; stores nothing."""
    append_batches(shard, (), Limits())


def limit_usage(shard: Shard) -> LimitUsage:
    """Usage of the shard's limits. Expired names count until the next one is added."""
    pipe = shard.client.pipeline(transaction=False)
    for key in (shard.keys.devices, shard.keys.sent_until, shard.keys.senders_seen):
        pipe.zcard(key)
    pipe.hmget(shard.keys.quarantine_state, ("bytes", *QuarantineCounts._fields))
    devices, names, senders, state = translated(pipe.execute)
    size, *counts = (int(value or 0) for value in state)
    return LimitUsage(devices, names, senders, size, QuarantineCounts(*counts))
