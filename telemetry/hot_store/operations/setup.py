"""Setting up a shard's store, and upgrading that of an older release (lua/store.lua)."""

from __future__ import annotations

import redis

from telemetry.hot_store.function_library import LAYOUT, call
from telemetry.hot_store.keys import Keys
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shape, _shape, shape


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
