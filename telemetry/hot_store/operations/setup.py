"""Sets up a shard's store, and upgrades the store of an older release (lua/store.lua)."""

from __future__ import annotations

import redis

from telemetry.hot_store.function_library import LAYOUT, call
from telemetry.hot_store.keys import Keys
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shape, _shape, shape


def setup(client: redis.Redis, shard: int, new_id: str, shards: int, committed: str, next_id: int) -> Shape:
    """Create the shard's store if it does not exist. Returns its identity."""
    k = Keys(shard)
    args: list[str | bytes | int] = [new_id, LAYOUT, shards, shard, committed, next_id]
    return _shape(translated(lambda: call(client, "setup", [k.store, k.committed, k.next_id], args)))


def upgrade(client: redis.Redis, shard: int, new_id: str) -> int | None:
    """Upgrade the store of an older release to the current layout. Returns the old layout, None without a store.

    Unsaved records are unchanged: records without later fields can be read (record.py). After that the older release
    rejects the store, since it would save records without fields that it does not know; its running programs are
    stopped by the new id.
    """
    existing = shape(client, shard)
    if existing is None or existing.layout >= LAYOUT:
        return None
    args: list[str | bytes | int] = [existing.store_id, existing.layout, LAYOUT, new_id]
    translated(lambda: call(client, "upgrade", [Keys(shard).store], args))
    return existing.layout
