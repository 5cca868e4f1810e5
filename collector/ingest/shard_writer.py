"""Writer of a shard: appends groups, one call to Redis at a time, from a thread or, for small groups, from the event
loop.

The thread runs redis-py's synchronous client, which packs with hiredis and is much cheaper than its asyncio pipeline;
small groups do not need it (inline_append.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import redis

from collector.ingest.batch_order import Lane
from collector.ingest.batching import Load, apart, bringers_of, have_bringers, prefixes_of, together
from collector.ingest.inline_append import Call, SmallGroups, appended, are_small
from collector.ingest.watermarks import Gate, Watermarks
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import require_answer
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.operations.append import (
    KEYS_FULL,
    OTHER_BODY,
    SEEN,
    SENDERS_FULL,
    SHARE_FULL,
    UNLIMITED,
    Appended,
    Limits,
    Owner,
    append_batches,
)
from telemetry.hot_store.operations.quarantine import quarantine_rejected
from telemetry.hot_store.response_errors import SHARE_RETRY_S, DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import (
    BusyError,
    ConfigError,
    KeyReusedError,
    ShareFull,
    StoreError,
    StoreUnavailable,
    TooManyDays,
)

log = logging.getLogger(__name__)

GROUP_ENTRIES, GROUP_RECORDS, GROUP_BYTES = 10_000, 40_000, 2**23
"""Maximum size of a group: stream entries, records, and bytes as received. One call takes some 20 to 100 ms, in which
Redis does nothing else. Each call waits for the disk once, so on a slow disk groups must be able to grow."""

GATHER_S, GATHER_PARTS = 0.004, 64
"""Pause of a writer after a group with this number of requests, s, so that the event loop can read more requests into
the next group: fewer calls need less CPU of collector and Redis (docs/performance.md)."""

KEEP_S = 0.1
"""Time for which a writer's thread waits for more after a large group, s, before small groups bypass it again."""

Outcome = Exception | bool
"""Result of a part: an error, or whether it was stored before."""

Tell = Callable[[Outcome], None]


class Part(NamedTuple):
    """The part of a request for one shard, and the callback for its result."""

    load: Load
    cost_bytes: int
    name: str
    body_hash: bytes
    tell: Tell
    begun_s: float
    number: int = 0
    lane: Lane | None = None
    aside: Sequence[Aside] = ()
    excess: TooManyDays | None = None
    """Why a numbered batch is rejected: the writer still handles it, so that no later one is stored before it."""

    owner: Owner = UNLIMITED

    def may_go(self, shard: int) -> bool:
        if self.excess is not None:
            self.note_failure(shard)  # immediately: later ones may be in the same group
            return False
        return self.lane is None or self.lane.may_go(shard, self.name, self.number)

    def note_failure(self, shard: int) -> None:
        if self.lane is not None:
            self.lane.failed(shard, self.name, self.number)


TellAll = Callable[[Sequence[Part], Sequence[Outcome], float, int], None]
"""Called in the event loop with the parts of a group, their results, the duration of the call in seconds, and the
number of repeated records, which were not stored again."""


class Store(NamedTuple):
    """Connection, limits and settings shared by all writers."""

    connect: Callable[[], redis.Redis]
    shards: int
    limits: Limits
    watermarks: Watermarks
    max_aside_bytes: int


class Writer(threading.Thread):
    """Appends to one shard, group after group, until stopped and empty.

    One call is in progress at a time. A task of the event loop makes the calls of small groups itself
    (inline_append.py); it leaves any other group, and those after it until small ones come again, to the thread. They
    share this state in turns.
    """

    def __init__(self, store: Store, number: int, tell: TellAll) -> None:
        super().__init__(name=f"intake-{number}", daemon=True)
        self._store = store
        self._number = number
        self._tell = tell
        self.newest_ms = 0
        self._resent = 0  # of the current group
        self._waiting: deque[Part] = deque()
        self._changed = asyncio.Event()
        self._arrived = threading.Condition()
        self._is_idle = False
        self._stopping = False
        self._client = store.connect()
        self._shard: Shard | None = None
        self._was_unanswered = False
        self._gate = Gate(self._client, store.watermarks)
        self._small: SmallGroups | None = None
        self._given: SimpleQueue[_Given | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._serving = self._loop.create_task(self._serve())

    # In the event loop

    def put(self, part: Part) -> None:
        """Queue a part. An idle thread checks the queue again after it announced that it is idle, so none is missed."""
        self._waiting.append(part)
        self._changed.set()
        if self._is_idle:
            self._wake()

    async def stop(self) -> None:
        """Append the queued parts, then end."""
        self._stopping = True
        self._changed.set()
        self._wake()
        await self._serving
        self._given.put(None)
        await asyncio.to_thread(self.join)
        if self._small is not None:
            self._small.close()

    def _wake(self) -> None:
        with self._arrived:
            self._arrived.notify()

    async def _serve(self) -> None:
        group: list[Part] = []
        while group or await self._some_wait():
            if group := await self._by_loop(group or self._next_group()):
                group = await self._by_thread(group)

    async def _some_wait(self) -> bool:
        while not self._waiting and not self._stopping:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._waiting)

    async def _by_loop(self, group: list[Part]) -> list[Part]:
        """Append small groups; returns the next group for the thread, if any. Results of a group are reported while
        Redis stores the next one.
        """
        while group and (call := self._begun(group)) is not None:
            begun_s = time.monotonic()
            outcomes = await self._answered(group, call)
            if outcomes is None:
                return group
            self._loop.call_soon(self._tell, group, outcomes, time.monotonic() - begun_s, self._take_resent())
            group = self._next_group()
        return group

    def _begun(self, group: Sequence[Part]) -> Call | None:
        """The call of a group; None if it is for the thread."""
        if not self._is_small(group) or self._small is None or self._shard is None:
            return None
        try:
            return self._small.begin(self._shard, group)
        except Exception:
            return None  # the thread gets the same error, and reports it

    async def _answered(self, group: Sequence[Part], call: Call) -> list[Outcome] | None:
        """Result of each part; None if the thread must handle the group."""
        try:
            found = await appended(call)
        except Exception as error:
            return self._refused(group, error)
        if found is None:
            return None
        self._note(found)
        return [False] * len(group)

    async def _by_thread(self, group: list[Part]) -> list[Part]:
        """Let the thread append a group and the following ones; returns the next small group."""
        given = _Given(group, self._loop.create_future())
        self._given.put(given)
        return await given.done

    def _take(self, connection: Any) -> None:
        """Use a connection for small groups from now on."""
        self._small = SmallGroups(connection, self._store.limits)

    # In either, by turns

    def _next_group(self) -> list[Part]:
        group: list[Part] = []
        entries = records = size = 0
        while self._waiting and (
            not group or (entries < GROUP_ENTRIES and records < GROUP_RECORDS and size < GROUP_BYTES)
        ):
            part = self._waiting.popleft()
            group.append(part)
            entries += part.load.most_entries
            records += part.load.size
            size += part.cost_bytes
        return group

    def _note(self, found: Appended) -> None:
        self.newest_ms = found.newest_ms
        self._resent += found.resent

    def _take_resent(self) -> int:
        """Number of repeated records in the group; resets it."""
        resent, self._resent = self._resent, 0
        return resent

    def _is_small(self, group: Sequence[Part]) -> bool:
        """True if a group may use the loop's connection now."""
        is_there = self._small is not None and not self._small.is_lost
        return is_there and self._shard is not None and self._gate.is_open and are_small(group)

    # In the thread

    def _in_loop(self, call: Callable[..., object], *arguments: object) -> None:
        """Call a function in the event loop, if it is still running."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    def run(self) -> None:
        with suppress(StoreError, ConfigError, BusyError):
            self._attach()
            self._gate.pass_or_refuse()
            self._connect()
        while (given := self._given.get()) is not None:
            behind = self._append_on(given.group)
            self._connect()
            self._in_loop(_give_back, given.done, behind)
        self._client.close()

    def _append_on(self, group: list[Part]) -> list[Part]:
        """Append groups until none is queued, or a small one `KEEP_S` after the last other group; returns that."""
        until_s = 0.0
        while group:
            begun_s = time.monotonic()
            outcomes = self._outcomes(group)
            done_s = time.monotonic()
            self._in_loop(self._tell, group, outcomes, done_s - begun_s, self._take_resent())
            if not are_small(group):
                until_s = done_s + KEEP_S
                if len(group) >= GATHER_PARTS and not self._stopping:
                    time.sleep(GATHER_S)
            if not self._waiting:
                self._await_parts(until_s)
            group = self._next_group()
            if time.monotonic() >= until_s and self._is_small(group):
                break
        return group

    def _await_parts(self, until_s: float) -> None:
        with self._arrived:
            self._is_idle = True
            while not self._waiting and not self._stopping and (left_s := until_s - time.monotonic()) > 0:
                self._arrived.wait(left_s)
            self._is_idle = False

    def _connect(self) -> None:
        """Make the connection for small groups, if there is none and Redis is reachable. Not over TLS: see
        direct_connection.py.
        """
        if self._shard is None or (self._small is not None and not self._small.is_lost):
            return
        if issubclass(self._client.connection_pool.connection_class, redis.SSLConnection):
            return
        with suppress(Exception):  # the thread does not need it
            connection: Any = self._client.connection_pool.make_connection()
            connection.connect()
            self._in_loop(self._take, connection)

    def _attach(self) -> Shard:
        """Attach to the shard, and read its clock, which decides at the start which timestamps are in the future."""
        self._shard = hot.attach(self._client, self._store.shards)[self._number]
        self.newest_ms = self._shard.newest_ms()
        return self._shard

    def _outcomes(self, group: list[Part]) -> list[Outcome]:
        """Results of the parts; a batch after a failed one of the same sender is rejected."""
        goes = [part.may_go(self._number) for part in group]
        tried = iter(self._try([part for part, may in zip(group, goes, strict=True) if may]))
        outcomes = [next(tried) if may else _overtakes(part) for part, may in zip(group, goes, strict=True)]
        for part, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Exception) and part.excess is None:
                part.note_failure(self._number)
        return outcomes

    def _try(self, group: list[Part]) -> list[Outcome]:
        if not group:
            return []
        try:
            if self._was_unanswered:
                require_answer(self._client)
                self._was_unanswered = False
            self._gate.pass_or_refuse()
            return self._append(group)
        except DevicesFull as error:
            if len(group) == 1:
                return [error]
            half = len(group) // 2
            return self._outcomes(group[:half]) + self._outcomes(group[half:])
        except Exception as error:
            return self._refused(group, error)

    def _refused(self, group: Sequence[Part], error: Exception) -> list[Outcome]:
        """Results of a group that was not stored, or perhaps not."""
        if isinstance(error, BusyError):
            return [BusyError(str(error), error.retry_after_s) for _ in group]
        self._shard = None
        if isinstance(error, (StoreError, ConfigError)):
            self._was_unanswered = isinstance(error, StoreUnavailable)
            log.warning("rejecting %d requests: %s", len(group), error)
            return [BusyError(str(error)) for _ in group]
        log.error("rejecting %d requests", len(group), exc_info=error)
        return [BusyError(f"the store failed: {type(error).__name__}") for _ in group]

    def _append(self, group: list[Part]) -> list[Outcome]:
        shard = self._shard or self._attach()
        aside = [one for part in group for one in part.aside]
        if aside:  # first: after a failure it is sent again, and a duplicate is better than a loss
            quarantine_rejected(shard, aside, self._store.max_aside_bytes)
        prefixes = prefixes_of(group)
        bringers = partial(bringers_of, group) if have_bringers(group) else None
        found = append_batches(shard, together(group), self._store.limits, True, prefixes, bringers)
        if any(found.statuses):
            found = append_batches(shard, apart(group), self._store.limits, False, prefixes, bringers)
        self._note(found)
        statuses = iter(found.statuses[1:])
        return [_outcome(next(statuses), part) if part.name else False for part in group]


class _Given(NamedTuple):
    """A group passed to the thread, and the future of the small group that it returns."""

    group: list[Part]
    done: asyncio.Future[list[Part]]


def _give_back(done: asyncio.Future[list[Part]], group: list[Part]) -> None:
    if not done.done():  # the loop is ending
        done.set_result(group)


def _overtakes(part: Part) -> Exception:
    return part.excess or BusyError("an earlier batch of this sender failed")


def _outcome(status: int, part: Part) -> Outcome:
    if status == OTHER_BODY:
        return KeyReusedError("this Idempotency-Key was used with another body")
    if status == KEYS_FULL:
        return BusyError("too many Idempotency-Keys are remembered", retry_after_s=30)
    if status == SENDERS_FULL:
        return BusyError("sender limit reached (collector.max_senders): new senders are rejected", retry_after_s=30)
    if status == SHARE_FULL:
        return _share_full(part)
    return status == SEEN


def _share_full(part: Part) -> ShareFull:
    """Log that a share is full, and return the error for its sender."""
    what, settings = ("sender", "max_senders") if part.number else ("Idempotency-Key", "max_idempotency_keys")
    each = "limits.senders_per_device" if part.number else "limits.idempotency_keys_per_device"
    limit = part.owner.max_senders if part.number else part.owner.max_names
    log.warning("%s has its share of collector.%s, %d: new ones are refused", part.owner.name, settings, limit)
    return ShareFull(
        f"cannot remember one more {what}: this key or address has {limit} already, its share of collector.{settings} "
        f"({each}, limits.owner_share_percent)",
        retry_after_s=SHARE_RETRY_S,
    )
