"""Group commit: from decoded messages to the hot store, durable before the answer.

While one call to Redis is in flight, what arrives forms the next group: senders who wait at the same time
share one function call and one fsync. A writer thread for each shard runs redis-py's synchronous client,
which packs with hiredis and costs a tenth of its asyncio pipeline; small groups don't need it (small_groups.py).
What waits is bounded in bytes; whoever comes when it is full is refused (HTTP) or not read from (TCP).

From `full_percent` of Redis's memory on everything is refused, until the worker has drained it below
`resume_percent`: at the limit itself RQ could not even enqueue a save, and the box would be stuck. The same
while a disk has too little room (telemetry/disk.py).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import redis

from collector.loads import Load, apart, together
from collector.small_groups import Call, SmallGroups, appended, are_small
from telemetry import hot, meters
from telemetry.disk import Room
from telemetry.entries import Aside
from telemetry.errors import BusyError, ConfigError, KeyReusedError, StoreError, StoreUnavailable
from telemetry.hot import DevicesFull, Limits, Shard, shard_of
from telemetry.record import Sent
from telemetry.redis_client import require_answer

log = logging.getLogger(__name__)

GROUP_ENTRIES, GROUP_RECORDS, GROUP_BYTES = 10_000, 40_000, 2**23
"""What a group is full at: entries of Redis's streams, records, and bytes as they came. An entry costs Redis 8 µs, a
record in it 1; so one call takes some 20 to 100 ms, in which Redis does nothing else. Each waits for the disk once, so
on a slow one groups must be able to grow: with 10,000 records at most, they were full there."""

GATHER_S, GATHER_PARTS = 0.004, 64
"""How long a writer leaves the processor to the event loop behind a group of so many requests: what they send next then
comes in fewer calls. One record a line of 1,000 connections: half as many again in each, and a tenth less of the CPU of
collector and Redis together."""

KEEP_S = 0.1
"""How long a writer's thread waits for more behind a group that is not small, before small ones may go without it. The
loop sends a group when it has handled all that came together: of 1,000 connections that is some ms later."""

SWITCH_S = 0.0005
"""How long the event loop's thread decodes on while a writer's wants Python's lock, a tenth of what is usual: a writer
wants it with each piece of a call that it sends, and Redis waits for the last piece. 10,000 records were sent in 12 to
17 ms while others were decoded, and are in 4 to 7."""

MAX_FAILED_SENDERS = 1_000
"""Senders of one connection whose failures are remembered; a gateway with more begins a connection anew."""

MARKS_CHECK_S = 0.25
"""How often the marks are looked at: at 200 MB/s a disk loses 50 MB between two looks."""


class Watermarks(NamedTuple):
    """Percent of Redis's memory: refuse from `full` on, take again below `resume`. And the disks' room."""

    full: int = 80
    resume: int = 70
    room: Room = Room()


class _Gate:
    """Shut from one mark until the box is back behind the other, by looks that are some time apart."""

    def __init__(self, client: redis.Redis, marks: Watermarks) -> None:
        self._client = client
        self._marks = marks
        self._is_full = False
        self._is_short = False
        self._next_check_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it was at the last look, and none is due."""
        return not self._is_short and not self._is_full and time.monotonic() < self._next_check_s

    def pass_or_refuse(self) -> None:
        """Raise `BusyError` while it is shut, `StoreError` if Redis can't be asked."""
        now_s = time.monotonic()
        if now_s >= self._next_check_s:
            self._look()
            self._next_check_s = now_s + MARKS_CHECK_S
        if self._is_short:
            raise BusyError("the disk has too little room left", retry_after_s=30)
        if self._is_full:
            raise BusyError("Redis is above its memory mark; the worker drains it", retry_after_s=5)

    def _look(self) -> None:
        try:
            self._is_short = self._marks.room.is_short(self._is_short)
        except OSError as error:
            raise BusyError(f"cannot look at the disk: {error}", retry_after_s=30) from error
        used_percent = memory_percent(self._client)
        self._is_full = used_percent >= (self._marks.resume if self._is_full else self._marks.full)


class Lane:
    """What of one connection could not be stored, so that none of its senders overtakes itself.

    Were a sender's batch 6 stored although its 5 failed, then 5 would be taken for a repeat when it comes again,
    and be lost. So behind a failure all with a greater number fail, until that number comes again or, over another
    connection, the sender begins anew. The writers' threads use it, each for its own shard.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._failed: dict[tuple[int, str], int] = {}

    def may_go(self, shard: int, sender: str, number: int) -> bool:
        """Whether a batch overtakes none. One that failed before, or an earlier one, lets those behind it go."""
        failed = self._failed.get((shard, sender))
        if failed is not None and number <= failed:
            del self._failed[shard, sender]
        return not self.is_over and (failed is None or number <= failed)

    def failed(self, shard: int, sender: str, number: int) -> None:
        """Note a failure. With too many senders to be remembered the lane is over: nothing goes any more."""
        if not self.is_over:
            self._failed[shard, sender] = min(self._failed.get((shard, sender), number), number)
            self.is_over = len(self._failed) > MAX_FAILED_SENDERS


class Numbered(NamedTuple):
    """A batch of a sender: its number is above those of all the sender's batches before, or it is a repeat."""

    sender: str
    number: int
    lane: Lane


Outcome = Exception | bool
"""What becomes of a part: stored, or True if it was stored before."""

Tell = Callable[[Outcome], None]


class _Part(NamedTuple):
    """What of one request goes to one shard, and who hears what becomes of it."""

    load: Load
    cost_bytes: int
    name: str
    body_hash: bytes
    tell: Tell
    begun_s: float
    number: int = 0
    lane: Lane | None = None
    aside: Sequence[Aside] = ()

    def may_go(self, shard: int) -> bool:
        return self.lane is None or self.lane.may_go(shard, self.name, self.number)

    def note_failure(self, shard: int) -> None:
        if self.lane is not None:
            self.lane.failed(shard, self.name, self.number)


class _Writer(threading.Thread):
    """Appends to one shard, group after group, until told to stop and nothing waits.

    One call is under way at a time: a task of the event loop makes that of a small group itself (small_groups.py), and
    leaves any other, and those behind it until small ones come again, to the thread. Whose turn it is has what is here.
    """

    def __init__(self, intake: Intake, number: int) -> None:
        super().__init__(name=f"intake-{number}", daemon=True)
        self._intake = intake
        self._number = number
        self.newest_ms = 0
        self._waiting: deque[_Part] = deque()
        self._changed = asyncio.Event()
        self._arrived = threading.Condition()
        self._is_idle = False
        self._stopping = False
        self._client = intake.connect()
        self._shard: Shard | None = None
        self._was_unanswered = False
        self._gate = _Gate(self._client, intake.watermarks)
        self._small: SmallGroups | None = None
        self._given: SimpleQueue[_Given | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._serving = self._loop.create_task(self._serve())

    # In the event loop

    def put(self, part: _Part) -> None:
        """Have a part appended. A thread that is idle looks once more after it has said so: it misses none."""
        self._waiting.append(part)
        self._changed.set()
        if self._is_idle:
            self._wake()

    async def stop(self) -> None:
        """Append what waits, then end."""
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
        group: list[_Part] = []
        while group or await self._some_wait():
            if group := await self._by_loop(group or self._next_group()):
                group = await self._by_thread(group)

    async def _some_wait(self) -> bool:
        while not self._waiting and not self._stopping:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._waiting)

    async def _by_loop(self, group: list[_Part]) -> list[_Part]:
        """Append small groups; returns the next that is for the thread, if any. Those who wait for one hear of it while
        Redis stores the next."""
        while group and (call := self._begun(group)) is not None:
            begun_s = time.monotonic()
            outcomes = await self._answered(group, call)
            if outcomes is None:
                return group
            self._loop.call_soon(self._intake.tell, group, outcomes, time.monotonic() - begun_s)
            group = self._next_group()
        return group

    def _begun(self, group: Sequence[_Part]) -> Call | None:
        """The call of a group; None if it is for the thread."""
        if not self._is_small(group) or self._small is None or self._shard is None:
            return None
        try:
            return self._small.begin(self._shard, group)
        except Exception:
            return None  # the thread meets the same fault, and tells of it

    async def _answered(self, group: Sequence[_Part], call: Call) -> list[Outcome] | None:
        """What becomes of each part; None if it is for the thread to find out."""
        try:
            found = await appended(call)
        except Exception as error:
            return self._refused(group, error)
        if found is None:
            return None
        self.newest_ms = found.newest_ms
        return [False] * len(group)

    async def _by_thread(self, group: list[_Part]) -> list[_Part]:
        """Have the thread append a group and those behind it; returns what it leaves."""
        given = _Given(group, self._loop.create_future())
        self._given.put(given)
        return await given.done

    def _take(self, connection: Any) -> None:
        """Have small groups go over a connection from now on."""
        self._small = SmallGroups(connection, self._intake.limits)

    # By whose turn it is

    def _next_group(self) -> list[_Part]:
        group: list[_Part] = []
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

    def _is_small(self, group: Sequence[_Part]) -> bool:
        """Whether a group may go over the loop's connection just now."""
        is_there = self._small is not None and not self._small.is_lost
        return is_there and self._shard is not None and self._gate.is_open and are_small(group)

    # In the thread

    def run(self) -> None:
        with suppress(StoreError, ConfigError, BusyError):
            self._attach()
            self._gate.pass_or_refuse()
            self._connect()
        while (given := self._given.get()) is not None:
            behind = self._append_on(given.group)
            self._connect()
            self._intake.in_loop(_give_back, given.done, behind)
        self._client.close()

    def _append_on(self, group: list[_Part]) -> list[_Part]:
        """Append groups until none or a small one waits, and has for `KEEP_S` behind the last other; returns that."""
        until_s = 0.0
        while group:
            begun_s = time.monotonic()
            outcomes = self._outcomes(group)
            done_s = time.monotonic()
            self._intake.in_loop(self._intake.tell, group, outcomes, done_s - begun_s)
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
        """Make the connection for small groups, if there is none and Redis is there. Not over TLS: see direct.py."""
        if self._shard is None or (self._small is not None and not self._small.is_lost):
            return
        if issubclass(self._client.connection_pool.connection_class, redis.SSLConnection):
            return
        with suppress(Exception):  # the thread needs none
            connection: Any = self._client.connection_pool.make_connection()
            connection.connect()
            self._intake.in_loop(self._take, connection)

    def _attach(self) -> Shard:
        """Find the shard, and how far its clock was; at the start, too, for it decides what is from the future."""
        self._shard = hot.attach(self._client, self._intake.shards)[self._number]
        self.newest_ms = self._shard.newest_ms()
        return self._shard

    def _outcomes(self, group: list[_Part]) -> list[Outcome]:
        """What becomes of each part; none overtakes one of its sender that failed."""
        goes = [part.may_go(self._number) for part in group]
        tried = iter(self._try([part for part, may in zip(group, goes, strict=True) if may]))
        outcomes = [next(tried) if may else BusyError("an earlier batch of this sender failed") for may in goes]
        for part, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Exception):
                part.note_failure(self._number)
        return outcomes

    def _try(self, group: list[_Part]) -> list[Outcome]:
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

    def _refused(self, group: Sequence[_Part], error: Exception) -> list[Outcome]:
        """What those hear whose group was not stored, or perhaps not."""
        if isinstance(error, BusyError):
            return [BusyError(str(error), error.retry_after_s) for _ in group]
        self._shard = None
        if isinstance(error, (StoreError, ConfigError)):
            self._was_unanswered = isinstance(error, StoreUnavailable)
            log.warning("refusing %d requests: %s", len(group), error)
            return [BusyError(str(error)) for _ in group]
        log.error("refusing %d requests", len(group), exc_info=error)
        return [BusyError(f"the store failed: {type(error).__name__}") for _ in group]

    def _append(self, group: list[_Part]) -> list[Outcome]:
        shard = self._shard or self._attach()
        aside = [one for part in group for one in part.aside]
        if aside:  # first: what is not stored then comes again, and better twice here than not at all
            shard.set_aside(aside, self._intake.max_aside_bytes)
        found = shard.append(together(group), self._intake.limits, is_whole=True)
        if any(found.statuses):
            found = shard.append(apart(group), self._intake.limits)
        self.newest_ms = found.newest_ms
        statuses = iter(found.statuses[1:])
        return [_outcome(next(statuses)) if part.name else False for part in group]


class _Given(NamedTuple):
    """A group that the thread is given, and the future of what it gives back: the next that is small."""

    group: list[_Part]
    done: asyncio.Future[list[_Part]]


def _give_back(done: asyncio.Future[list[_Part]], group: list[_Part]) -> None:
    if not done.done():  # the loop is about to end
        done.set_result(group)


def _outcome(status: int) -> Outcome:
    if status == hot.OTHER_BODY:
        return KeyReusedError("this Idempotency-Key came before with another body")
    if status == hot.KEYS_FULL:
        return BusyError("too many Idempotency-Keys are remembered", retry_after_s=30)
    if status == hot.SENDERS_FULL:
        return BusyError("collector.max_senders is reached: no new sender is taken", retry_after_s=30)
    return status == hot.SEEN


def memory_percent(client: redis.Redis) -> float:
    """How much of its memory limit Redis uses; 0 if it has none."""
    info = hot.translated(lambda: client.info("memory"))
    return 100 * info["used_memory"] / info["maxmemory"] if info["maxmemory"] else 0.0


class Intake:
    """Stores records and tells when they are safe. All methods but `in_loop` belong to the event loop."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        shards: int,
        limits: Limits,
        max_pending_bytes: int,
        watermarks: Watermarks | None = None,
        max_aside_bytes: int = 16 * 2**20,
    ) -> None:
        self.max_aside_bytes = max_aside_bytes
        self.connect = connect
        self.shards = shards
        self.limits = limits
        self.watermarks = watermarks or Watermarks()
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writers: list[_Writer] = []
        self._measured = _Measured()

    def start(self) -> None:
        """Start the writer threads."""
        sys.setswitchinterval(SWITCH_S)
        self._loop = asyncio.get_running_loop()
        meters.PENDING_BYTES.one.watch(lambda: self._pending_bytes)
        meters.PENDING_LIMIT.one.set(self._max_pending_bytes)
        self._writers = [_Writer(self, number) for number in range(self.shards)]
        for writer in self._writers:
            writer.start()

    async def stop(self) -> None:
        """Store what was submitted, then end the writers."""
        await asyncio.gather(*[writer.stop() for writer in self._writers])

    @property
    def newest_ms(self) -> int:
        """The greatest that the box's clock showed as a record arrived, as far as Redis has told us; ms since epoch."""
        return max((writer.newest_ms for writer in self._writers), default=0)

    @property
    def has_room(self) -> bool:
        """False while more waits than may."""
        return self._pending_bytes < self._max_pending_bytes

    async def room(self) -> None:
        """Return once there is room again."""
        await self._room.wait()

    async def submit(
        self,
        records: Sequence[Sent],
        cost_bytes: int,
        name: str = "",
        body_hash: bytes = b"",
        aside: Sequence[Aside] = (),
    ) -> None:
        """Store the records of one request; return when they, and what is `aside`, are on disk.

        `cost_bytes` is what they count against the bound. With a `name` they are stored once however often
        they come. Raises `BusyError` if they can't be stored now, `KeyReusedError` if `name` came before
        with another `body_hash`. With several shards a failure may leave a part stored; the retry with the
        same name stores the rest.
        """
        if not self.has_room:
            raise BusyError("more records are waiting for the store than may", retry_after_s=1)
        parts = self._parts(records)
        if name:
            home = shard_of(name, self.shards)  # decides first whether the name is free, for all shards
            done, tell = self._future()
            self._put(tell, home, parts.pop(home, []), cost_bytes, name, body_hash)
            await done
        done, tell = self._future()
        self._put_all(tell, parts, cost_bytes, name, body_hash, aside=aside)
        await done

    async def submit_numbered(self, records: Sequence[Sent], cost_bytes: int, sender: str, number: int) -> bool:
        """Like `submit`, of a sender that numbers its batches and waits for each answer; True if it was stored before.

        Raises `BusyError` if it can't be stored now: the same number has to come again before any greater one.
        """
        if not self.has_room:
            raise BusyError("more records are waiting for the store than may", retry_after_s=1)
        return await self.offer(records, cost_bytes, Numbered(sender, number, Lane()))

    def offer(
        self,
        records: Sequence[Sent],
        cost_bytes: int,
        numbered: Numbered | None = None,
        aside: Sequence[Aside] = (),
    ) -> asyncio.Future[bool]:
        """Like `submit`, but at once and without regard to room: the caller waits for that.

        A sender's batch is stored once; the result is True if it was before. One without records gives its number
        up: every shard remembers it. What is `aside` is in quarantine when the result comes.
        """
        done, tell = self._future()
        self.hand_over(tell, records, cost_bytes, numbered, aside)
        return done

    def hand_over(
        self,
        tell: Tell,
        records: Sequence[Sent],
        cost_bytes: int,
        numbered: Numbered | None = None,
        aside: Sequence[Aside] = (),
    ) -> None:
        """The same for who is told by a call, which comes to all of a group one after the other. It may not raise. A
        future and its callback cost 1 µs more."""
        parts = self._parts(records)
        sender, number, lane = numbered or ("", 0, None)
        if numbered and not records:
            parts = dict.fromkeys(range(self.shards), records)
        self._put_all(tell, parts, cost_bytes, sender, b"", number, lane, aside)

    def _future(self) -> tuple[asyncio.Future[bool], Tell]:
        """A future, and what gives it its result."""
        if self._loop is None:
            raise BusyError("the intake is not running")
        done: asyncio.Future[bool] = self._loop.create_future()
        return done, partial(_settle, done)

    def _parts(self, records: Sequence[Sent]) -> dict[int, Sequence[Sent]]:
        if self.shards == 1:
            return {0: records} if records else {}
        parts: dict[int, list[Sent]] = {}
        for sent in records:
            parts.setdefault(shard_of(sent.device_id, self.shards), []).append(sent)
        return dict(parts)

    def _put_all(
        self,
        tell: Tell,
        parts: dict[int, Sequence[Sent]],
        cost_bytes: int,
        name: str,
        body_hash: bytes,
        number: int = 0,
        lane: Lane | None = None,
        aside: Sequence[Aside] = (),
    ) -> None:
        """Put each shard's part, and what is `aside`; once all is known `tell` hears of it."""
        waits = len(parts) + bool(aside)
        if waits == 0:
            tell(False)
            return
        if waits > 1:
            tell = _Joined(waits, tell)
        for shard, part in parts.items():
            self._put(tell, shard, part, cost_bytes, name, body_hash, number, lane)
        if aside:
            self._put(tell, 0, (), 0, "", b"", aside=aside)

    def _put(
        self,
        tell: Tell,
        shard: int,
        records: Sequence[Sent],
        cost_bytes: int,
        name: str,
        body_hash: bytes,
        number: int = 0,
        lane: Lane | None = None,
        aside: Sequence[Aside] = (),
    ) -> None:
        if self._loop is None:
            raise BusyError("the intake is not running")
        self._pending_bytes += cost_bytes
        if not self.has_room:
            self._room.clear()
        begun_s, load = time.monotonic(), Load.of(records)
        self._writers[shard].put(_Part(load, cost_bytes, name, body_hash, tell, begun_s, number, lane, aside))

    def in_loop(self, call: Callable[..., object], *arguments: object) -> None:
        """Have the event loop call something, if it still runs. Called by the writers' threads."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    def tell(self, group: Sequence[_Part], outcomes: Sequence[Outcome], took_s: float) -> None:
        """Tell those who wait for a group, whose call took so long."""
        self._measured.note(group, outcomes, took_s)
        for part, outcome in zip(group, outcomes, strict=True):
            self._pending_bytes -= part.cost_bytes
            part.tell(outcome)
        if self.has_room:
            self._room.set()


class _Measured:
    """The meters of what is stored. Each belongs to the event loop, so that the writers' threads need no lock."""

    def __init__(self) -> None:
        self._accepted = meters.ACCEPTED.one
        self._repeated = meters.REPEATED.one
        self._ack_s = meters.ACK_S.one
        self._group_records = meters.GROUP_RECORDS.one
        self._append_s = meters.APPEND_S.one

    def note(self, group: Sequence[_Part], outcomes: Sequence[Outcome], took_s: float) -> None:
        """Count a group: what was stored of it, what had been before; failures are refusals (refusals.py)."""
        self._append_s.observe(took_s)
        stored: Sequence[_Part] = group
        if any(outcomes):
            stored = [part for part, outcome in zip(group, outcomes, strict=True) if outcome is False]
            self._repeated.value += sum([outcome is True for outcome in outcomes])
        records = sum([part.load.size for part in stored])
        self._accepted.value += records
        self._group_records.observe(records)
        self._ack_s.observe_ages([part.begun_s for part in stored], time.monotonic())


class _Joined:
    """Hears what becomes of each part of a request, and then tells of the whole: the first failure, or whether all were
    stored before."""

    def __init__(self, parts: int, tell: Tell) -> None:
        self._parts = parts
        self._tell = tell
        self._outcomes: list[Outcome] = []

    def __call__(self, outcome: Outcome) -> None:
        """Hear of a part."""
        self._outcomes.append(outcome)
        if len(self._outcomes) == self._parts:
            failures = [one for one in self._outcomes if isinstance(one, Exception)]
            self._tell(failures[0] if failures else all(self._outcomes))


def _settle(done: asyncio.Future[bool], outcome: Outcome) -> None:
    if done.done():  # who waited gave up
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
