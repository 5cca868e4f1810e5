"""Quarantine of data that could not be saved or converted to records (lua/quarantine.lua)."""

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
"""Maximum size of unusable data from a sender that is stored: enough to find the fault, bytes."""


class Quarantined(NamedTuple):
    """Data that could not be saved, and the reason: bytes of a record or of a whole entry. `entry` was its position in
    the device's stream, `first_id` the id promised to it or to the first of its records; 0-0 and 0 for data that was
    never a record.
    """

    name: str
    device_id: str
    entry: str
    first_id: int
    reason: str
    raw: bytes

    @property
    def at_ms(self) -> int:
        """Time at which it was quarantined, ms since epoch."""
        return entry_id(self.name)[0]

    @property
    def arrival_ms(self) -> int:
        """Time of its arrival at the box, ms since epoch, as far as known."""
        return self.at_ms if self.was_never_a_record else min(entry_id(self.entry)[0], LATEST_MS)

    @property
    def was_never_a_record(self) -> bool:
        """True for data of a device that could not be converted to a record."""
        return self.entry == NO_ENTRY


class QuarantineCounts(NamedTuple):
    kept: int
    dropped: int
    replayed: int


def _quarantined(raw: RawEntry) -> Quarantined:
    name, fields = raw
    device, entry, first_id, reason, content = fields[1::2]
    return Quarantined(name.decode(), device.decode(), entry.decode(), int(first_id), reason.decode(), content)


def quarantine_unreadable(shard: Shard, intent: Intent, values: Sequence[Unreadable], max_bytes: int) -> int:
    """Store data that an intent cannot save; done once per intent. Returns the number of old entries dropped."""
    k = shard.keys
    args: list[str | bytes | int] = [shard.store_id, intent.head, intent.commit, max_bytes]
    for value in values:
        args += (value.device_id, value.entry, value.first_id + value.number * shard.shards, value.reason, value.raw)
    keys = [k.store, k.intent, k.quarantine, k.quarantine_state, k.replayed]
    dropped = shard.call("quarantine", keys, args)
    if dropped < 0:
        raise IntentChanged("cannot quarantine: the intent was finished by another worker, or Redis was restored")
    return int(dropped)


def quarantine_rejected(shard: Shard, values: Sequence[Aside], max_bytes: int) -> int:
    """Store data that a collector could not convert. Returns the number of old entries dropped."""
    k = shard.keys
    args: list[str | bytes | int] = [shard.store_id, max_bytes]
    for value in values:
        args += (value.device_id, NO_ENTRY, 0, value.reason, value.raw[:MAX_ASIDE_BYTES])
    return int(shard.call("set_aside", [k.store, k.quarantine, k.quarantine_state, k.replayed], args))


def read_quarantine(shard: Shard) -> Iterator[Quarantined]:
    """The quarantine, oldest first, read in pieces between which Redis serves other clients."""
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
    """Total numbers of entries kept in quarantine, dropped from it, and replayed."""
    counts = translated(lambda: shard.client.hmget(shard.keys.quarantine_state, QuarantineCounts._fields))
    return QuarantineCounts(*(int(value or 0) for value in counts))


def replay(shard: Shard, one: Quarantined, entry: Entry) -> bool:
    """Append `entry` in place of a quarantined one, atomically. False if that is gone.

    It gets new ids and keeps its time of arrival.
    """
    k = shard.keys
    keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id]
    keys += [k.quarantine, k.quarantine_state, k.replayed, k.stream(entry.device_id), k.deleting]
    args: list[str | bytes | int] = [shard.store_id, one.name, entry.device_id, one.arrival_ms, *entry[1:4]]
    return bool(shard.call("replay", keys, args))
