"""The quick way of a group of small requests: one call over a connection of the event loop's own, without a thread.

A thread that sends a call and waits for the answer wants Python's lock three times from a loop that is busy with the
next requests, and redis-py adds to that. One record a request, of 64 connections: 43 µs of the collector, not 57,
and a quarter more in a second; of 16 connections 60 µs, not 86. A group begins when the loop has handled all
that came together, so one half of the senders is read and answered while Redis stores what the other half sent.

Only what is usual goes here. The writer's thread (shard_writer.py) takes any group, and so those that are large or have
names, those that Redis refuses as a whole, and all while this connection is lost.
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
"""Of a group. What 1,000 connections send the thread stores as cheaply, and begins sooner (shard_writer.py: KEEP_S)."""


class Small(Bringing, Protocol):
    """A request that may be of such a group."""

    @property
    def cost_bytes(self) -> int: ...

    @property
    def aside(self) -> Sequence[Aside]: ...


Call = asyncio.Future[Any]
"""A call under way; its result is Redis's answer as it came."""


class SmallGroups:
    """Appends over a connection that redis-py has made; used in a running event loop, one call at a time."""

    def __init__(self, connection: Any, limits: Limits) -> None:
        self._line = Line(connection, connection.socket_timeout)
        self._limits = limits

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return self._line.is_lost

    def close(self) -> None:
        """Close the connection."""
        self._line.lose(redis.ConnectionError("closed"))

    def begin(self, shard: Shard, group: Sequence[Small]) -> Call:
        """Send a group to a shard."""
        prefixes, has_bringers = prefixes_of(group), have_bringers(group)
        return self._line.call(packed_append(shard, together(group), self._limits, True, prefixes, has_bringers))


async def appended(call: Call) -> Appended | None:
    """What became of a group; None if Redis stored nothing of it. Raises `StoreUnavailable` if that can't be known."""
    try:
        answer = await call
    except redis.RedisError as error:
        raise StoreUnavailable(f"cannot reach Redis: {error}") from error
    if isinstance(answer, redis.ResponseError):
        return None
    found = Appended(*answer)
    return None if any(found.statuses) or found.repeats else found


def are_small(group: Sequence[Small]) -> bool:
    """Whether a group may go this way."""
    if len(group) > MOST_REQUESTS or any(part.name or part.aside for part in group):
        return False
    return sum([part.cost_bytes for part in group]) <= MOST_BYTES
