"""The steps of a save that change a shard (lua/save.lua): the intent, its ids, and the trim of saved entries."""

from __future__ import annotations

from collections.abc import Mapping

from telemetry.hot_store.entry_codec import Intent, behind, entry_id, entry_text
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import IntentChanged

NO_MARKS: Mapping[str, bytes] = {}


def note_trouble(shard: Shard, why: str) -> None:
    """Store why a save failed, until a save succeeds."""
    shard.call("note_trouble", [shard.keys.store], [shard.store_id, why])


def intend(shard: Shard, committed: str, intent: bytes) -> bool:
    """Guard 1: write the intent only if there is none and `committed` has not moved."""
    k = shard.keys
    return bool(
        shard.call("intend", [k.store, k.intent, k.committed, k.finishing], [shard.store_id, committed, intent])
    )


def allot(shard: Shard, count: int, token: str) -> int:
    """Assign ids to `count` records that are not stored here: the first id, the others follow in steps of `shards`."""
    k = shard.keys
    return int(shard.call("allot", [k.store, k.next_id, k.allotted], [shard.store_id, count, token]))


def intend_allotted(shard: Shard, committed: str, intent: bytes, token: str) -> bool:
    """`intend` for records whose ids were assigned under `token`.

    Raises `IntentChanged` if the token is unknown: Redis may assign the ids again, or a device was deleted.
    """
    k = shard.keys
    keys = [k.store, k.intent, k.committed, k.finishing, k.allotted]
    written = shard.call("intend_allotted", keys, [shard.store_id, committed, intent, token])
    if written < 0:
        raise IntentChanged("cannot use the assigned ids: Redis was restored, or a device was deleted meanwhile")
    return bool(written)


def finish_chunk(shard: Shard, intent: Intent, number: int, marks: Mapping[str, bytes] = NO_MARKS) -> None:
    """Trim chunk `number` of a committed intent. Raises `IntentChanged` (guard 4).

    `marks` are the last marks of the trimmed entries, by device; Redis reads those that the caller has not read.
    """
    k = shard.keys
    keys = [k.store, k.intent, k.committed, k.finishing, k.unsaved, k.dirty, k.recent]
    last = "1" if number == intent.chunk_count - 1 else "0"
    args: list[str | bytes | int] = [shard.store_id, intent.head, number, last, intent.commit]
    start = k.stream("")
    for taken in intent.chunk(number):
        keys.append(start + taken.device_id)
        args += (taken.device_id, entry_text(behind(entry_id(taken.last))), taken.records, taken.size_bytes)
        args.append(marks.get(taken.device_id, "?") if taken.is_marked else "")
    if shard.call("finish", keys, args) < 0:
        raise IntentChanged("cannot trim: the intent was finished by another worker, or Redis was restored")
