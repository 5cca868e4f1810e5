"""Taking a store over after Redis was restored (lua/recovery.lua)."""

from __future__ import annotations

from collections.abc import Sequence

from telemetry.hot_store.entry_codec import Moved
from telemetry.hot_store.shard import Shard


def take_over(shard: Shard, new_id: str, least_next_id: int) -> None:
    """Give the store a new id, which stops all programs that use the old one, and drop its intent."""
    k = shard.keys
    shard.call("take_over", [k.store, k.next_id, k.intent, k.finishing], [new_id, least_next_id])
    shard.store_id = new_id


def replace_entries(
    shard: Shard, device_id: str, last: str, gone: int, gone_bytes: int, entries: Sequence[Moved]
) -> None:
    """Replace a stream's entries up to `last`, which had `gone` records of `gone_bytes`, by `entries`."""
    k = shard.keys
    args: list[str | bytes | int] = [shard.store_id, device_id, last, gone, gone_bytes]
    for entry in entries:
        args += entry
    shard.call("replace", [k.store, k.stream(device_id), k.dirty, k.unsaved, k.next_id, k.latest], args)


def reopen(shard: Shard, committed: str) -> None:
    """Finish a recovery: saving continues from `committed`."""
    shard.call("reopen", [shard.keys.store, shard.keys.committed], [shard.store_id, committed])
