"""Fast path for groups of small requests: one call over a connection of the event loop, without a thread.

A thread that makes a call needs the GIL three times from a loop that is busy with the next requests, and redis-py adds
overhead (figures: docs/performance.md). A group begins when the loop has handled all requests that arrived together, so
that one half of the senders is read and answered while Redis stores the records of the other half.

The writer's thread (shard_writer.py) handles all other groups: large ones, named requests, groups that Redis rejects as
a whole, and all groups while this connection is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import redis

from collector.ingest.batching import Bringing, have_bringers, prefixes_of, together
from telemetry.hot_store.direct_connection import Line
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.operations.append import Appended, Limits, packed_append
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import StoreUnavailable

MOST_REQUESTS, MOST_BYTES = 128, 2**16
"""Limits of a group. For many connections the thread is as cheap, and begins sooner (shard_writer.py: KEEP_S)."""


class Small(Bringing, Protocol):
    """A request that may be part of such a group."""

    @property
    def cost_bytes(self) -> int: ...

    @property
    def aside(self) -> Sequence[Aside]: ...


Call = asyncio.Future[Any]
"""A call in progress; its result is Redis's response."""


class SmallGroups:
    """Appends over a connection made by redis-py; must be used in a running event loop, one call at a time."""

    def __init__(self, connection: Any, limits: Limits) -> None:
        self._line = Line(connection, connection.socket_timeout)
        self._limits = limits

    @property
    def is_lost(self) -> bool:
        """True if the connection is closed."""
        return self._line.is_lost

    def close(self) -> None:
        """Close the connection."""
        self._line.lose(redis.ConnectionError("closed"))

    def begin(self, shard: Shard, group: Sequence[Small]) -> Call:
        """Send a group to a shard."""
        prefixes, has_bringers = prefixes_of(group), have_bringers(group)
        return self._line.call(packed_append(shard, together(group), self._limits, True, prefixes, has_bringers))


async def appended(call: Call) -> Appended | None:
    """Result of a group; None if Redis stored nothing. Raises `StoreUnavailable` if the result is unknown."""
    try:
        answer = await call
    except redis.RedisError as error:
        raise StoreUnavailable(f"cannot reach Redis: {error}") from error
    if isinstance(answer, redis.ResponseError):
        return None
    found = Appended(*answer)
    return None if any(found.statuses) or found.repeats else found


def are_small(group: Sequence[Small]) -> bool:
    """True if a group may use this path."""
    if len(group) > MOST_REQUESTS or any(part.name or part.aside for part in group):
        return False
    return sum([part.cost_bytes for part in group]) <= MOST_BYTES
