"""What could not be saved, and what no record could be made of (lua/quarantine.lua)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from telemetry.hot_store.entry_codec import (
    LATEST_MS,
    NO_ENTRY,
    Aside,
    Entry,
    Intent,
    RawEntry,
    Unreadable,
    behind,
    entry_id,
    entry_text,
)
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import READ_ENTRIES, Shard
from telemetry.model.errors import IntentChanged

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


def _quarantined(raw: RawEntry) -> Quarantined:
    name, fields = raw
    device, entry, first_id, reason, kept = fields[1::2]
    return Quarantined(name.decode(), device.decode(), entry.decode(), int(first_id), reason.decode(), kept)


def quarantine_unreadable(shard: Shard, intent: Intent, found: Sequence[Unreadable], max_bytes: int) -> int:
    """Keep what an intent can't save; done once for each intent. Returns how many old ones it dropped."""
    k = shard.keys
    args: list[str | bytes | int] = [shard.store_id, intent.head, intent.commit, max_bytes]
    for one in found:
        args += (one.device_id, one.entry, one.first_id + one.number * shard.shards, one.reason, one.raw)
    keys = [k.store, k.intent, k.quarantine, k.quarantine_state, k.replayed]
    dropped = shard.call("quarantine", keys, args)
    if dropped < 0:
        raise IntentChanged("cannot quarantine: the intent was finished by another worker, or Redis was restored")
    return int(dropped)


def quarantine_rejected(shard: Shard, found: Sequence[Aside], max_bytes: int) -> int:
    """Keep what a collector could not make a record of. Returns how many old ones that dropped."""
    k = shard.keys
    args: list[str | bytes | int] = [shard.store_id, max_bytes]
    for one in found:
        args += (one.device_id, NO_ENTRY, 0, one.reason, one.raw[:MAX_ASIDE_BYTES])
    return int(shard.call("set_aside", [k.store, k.quarantine, k.quarantine_state, k.replayed], args))


def read_quarantine(shard: Shard) -> Iterator[Quarantined]:
    """What is in quarantine, the oldest first, read in pieces between which Redis serves others."""
    start = "-"
    while page := _quarantine_page(shard, start):
        replayed = _are_replayed(shard, [name for name, _ in page])
        yield from (_quarantined(raw) for raw, is_gone in zip(page, replayed, strict=True) if not is_gone)
        start = entry_text(behind(entry_id(page[-1][0])))


def _quarantine_page(shard: Shard, start: str) -> list[RawEntry]:
    return translated(lambda: shard.client.xrange(shard.keys.quarantine, start, "+", READ_ENTRIES))  # type: ignore[no-any-return]


def _are_replayed(shard: Shard, names: list[bytes]) -> list[int]:
    return translated(lambda: shard.client.smismember(shard.keys.replayed, names))  # type: ignore[no-any-return]


def quarantine_counts(shard: Shard) -> QuarantineCounts:
    """How many were ever kept in quarantine, dropped from it, and replayed."""
    found = translated(lambda: shard.client.hmget(shard.keys.quarantine_state, QuarantineCounts._fields))
    return QuarantineCounts(*(int(value or 0) for value in found))


def replay(shard: Shard, one: Quarantined, entry: Entry) -> bool:
    """Append `entry` in place of what was in quarantine, both in one. False if it isn't there any more.

    It gets new ids and keeps its time of arrival.
    """
    k = shard.keys
    keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id]
    keys += [k.quarantine, k.quarantine_state, k.replayed, k.stream(entry.device_id), k.deleting]
    args: list[str | bytes | int] = [shard.store_id, one.name, entry.device_id, one.arrival_ms, *entry[1:4]]
    return bool(shard.call("replay", keys, args))
