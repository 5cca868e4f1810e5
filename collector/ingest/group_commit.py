"""Group commit: from decoded messages to the hot store, durable before the answer.

While one call to Redis is in flight, what arrives forms the next group: senders who wait at the same time
share one function call and one fsync. Each shard has a writer that makes the calls (shard_writer.py). What waits is
bounded in bytes; whoever comes when it is full is refused (HTTP) or not read from (TCP). Above the marks of memory and
disk all is refused (watermarks.py).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import redis

from collector.ingest.batch_order import Lane, Numbered
from collector.ingest.batching import Load
from collector.ingest.day_limit import DeviceDays
from collector.ingest.fair_shares import Shares
from collector.ingest.shard_writer import Outcome, Part, Store, Tell, Writer
from collector.ingest.watermarks import Watermarks
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.append import UNLIMITED, Limits, Owner
from telemetry.model.errors import BusyError, TooManyDays
from telemetry.model.record import Sent
from telemetry.observability import metrics
from telemetry.system import clock

SWITCH_S = 0.0005
"""How long the event loop's thread decodes on while a writer's wants Python's lock, a tenth of what is usual: a writer
wants it with each piece of a call that it sends, and Redis waits for the last piece. 10,000 records were sent in 12 to
17 ms while others were decoded, and are in 4 to 7."""


class Intake:
    """Stores records and tells when they are safe. All methods belong to the event loop."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        shards: int,
        limits: Limits,
        max_pending_bytes: int,
        watermarks: Watermarks | None = None,
        max_aside_bytes: int = 16 * 2**20,
        device_days: DeviceDays | None = None,
        shares: Shares | None = None,
    ) -> None:
        self._store = Store(connect, shards, limits, watermarks or Watermarks(), max_aside_bytes)
        self._shards = shards
        self.shares = shares or Shares(limits, 100, 0, 0)
        self._device_days = device_days or DeviceDays(0, clock.now_us, time.monotonic)
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writers: list[Writer] = []
        self._measured = _Measured()

    def start(self) -> None:
        """Start the writer threads."""
        sys.setswitchinterval(SWITCH_S)
        self._loop = asyncio.get_running_loop()
        metrics.PENDING_BYTES.one.watch(lambda: self._pending_bytes)
        metrics.PENDING_LIMIT.one.set(self._max_pending_bytes)
        self._writers = [Writer(self._store, number, self._tell) for number in range(self._shards)]
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
        limits_days: bool = True,
        owner: Owner = UNLIMITED,
    ) -> None:
        """Store the records of one request; return when they, and what is `aside`, are on disk.

        `cost_bytes` is what they count against the bound. With a `name` they are stored once however often
        they come. `limits_days` is false for senders that cannot be told to wait. Raises `BusyError` if they can't be
        stored now (`TooManyDays` if their device has to wait), `KeyReusedError` if `name` came before
        with another `body_hash`. With several shards a failure may leave a part stored; the retry with the
        same name stores the rest.
        """
        if not self.has_room:
            raise BusyError("more records are waiting for the store than may", retry_after_s=1)
        if limits_days and (excess := self._device_days.excess(records)) is not None:
            raise excess
        parts = self._parts(records)
        if name:
            home = shard_of(name, self._shards)  # decides first whether the name is free, for all shards
            done, tell = self._future()
            self._put(tell, home, parts.pop(home, []), cost_bytes, name, body_hash, owner=owner)
            await done
        done, tell = self._future()
        self._put_all(tell, parts, cost_bytes, name, body_hash, aside=aside, owner=owner)
        await done

    async def submit_numbered(
        self, records: Sequence[Sent], cost_bytes: int, sender: str, number: int, owner: Owner = UNLIMITED
    ) -> bool:
        """Like `submit`, of a sender that numbers its batches and waits for each answer; True if it was stored before.

        Raises `BusyError` if it can't be stored now: the same number has to come again before any greater one.
        """
        if not self.has_room:
            raise BusyError("more records are waiting for the store than may", retry_after_s=1)
        return await self.offer(records, cost_bytes, Numbered(sender, number, Lane(), owner), owner=owner)

    def offer(
        self,
        records: Sequence[Sent],
        cost_bytes: int,
        numbered: Numbered | None = None,
        aside: Sequence[Aside] = (),
        owner: Owner = UNLIMITED,
    ) -> asyncio.Future[bool]:
        """Like `submit`, but at once and without regard to room: the caller waits for that.

        A sender's batch is stored once; the result is True if it was before. One without records gives its number
        up: every shard remembers it. What is `aside` is in quarantine when the result comes.
        """
        done, tell = self._future()
        self.hand_over(tell, records, cost_bytes, numbered, aside, owner)
        return done

    def hand_over(
        self,
        tell: Tell,
        records: Sequence[Sent],
        cost_bytes: int,
        numbered: Numbered | None = None,
        aside: Sequence[Aside] = (),
        owner: Owner = UNLIMITED,
    ) -> None:
        """The same for who is told by a call, which comes to all of a group one after the other. It may not raise. A
        future and its callback cost 1 µs more."""
        excess = self._device_days.excess(records)
        if excess is not None and numbered is None and self._loop is not None:
            self._loop.call_soon(tell, excess)
            return
        parts = self._parts(records)
        sender, number, lane, owner = numbered or ("", 0, None, owner)
        if numbered and not records:
            parts = dict.fromkeys(range(self._shards), records)
        self._put_all(tell, parts, cost_bytes, sender, b"", number, lane, aside, excess, owner)

    def _future(self) -> tuple[asyncio.Future[bool], Tell]:
        """A future, and what gives it its result."""
        if self._loop is None:
            raise BusyError("the intake is not running")
        done: asyncio.Future[bool] = self._loop.create_future()
        return done, partial(_settle, done)

    def _parts(self, records: Sequence[Sent]) -> dict[int, Sequence[Sent]]:
        if self._shards == 1:
            return {0: records} if records else {}
        parts: dict[int, list[Sent]] = {}
        for sent in records:
            parts.setdefault(shard_of(sent.device_id, self._shards), []).append(sent)
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
        excess: TooManyDays | None = None,
        owner: Owner = UNLIMITED,
    ) -> None:
        """Put each shard's part, and what is `aside`; once all is known `tell` hears of it."""
        waits = len(parts) + bool(aside)
        if waits == 0:
            tell(False)
            return
        if waits > 1:
            tell = _Joined(waits, tell)
        for shard, part in parts.items():
            self._put(tell, shard, part, cost_bytes, name, body_hash, number, lane, excess=excess, owner=owner)
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
        excess: TooManyDays | None = None,
        owner: Owner = UNLIMITED,
    ) -> None:
        if self._loop is None:
            raise BusyError("the intake is not running")
        self._pending_bytes += cost_bytes
        if not self.has_room:
            self._room.clear()
        begun_s, load = time.monotonic(), Load.of(records)
        part = Part(load, cost_bytes, name, body_hash, tell, begun_s, number, lane, aside, excess, owner)
        self._writers[shard].put(part)

    def _tell(self, group: Sequence[Part], outcomes: Sequence[Outcome], took_s: float, resent: int) -> None:
        """Tell those who wait for a group, whose call took so long, and of which so many records were repeats."""
        self._measured.note(group, outcomes, took_s, resent)
        for part, outcome in zip(group, outcomes, strict=True):
            self._pending_bytes -= part.cost_bytes
            part.tell(outcome)
        if self.has_room:
            self._room.set()


class _Measured:
    """The meters of what is stored. Each belongs to the event loop, so that the writers' threads need no lock."""

    def __init__(self) -> None:
        self._accepted = metrics.ACCEPTED.one
        self._repeated = metrics.REPEATED.one
        self._resent = metrics.RESENT.one
        self._ack_s = metrics.ACK_S.one
        self._group_records = metrics.GROUP_RECORDS.one
        self._append_s = metrics.APPEND_S.one

    def note(self, group: Sequence[Part], outcomes: Sequence[Outcome], took_s: float, resent: int) -> None:
        """Count a group: what was stored of it, what had been before; failures are refusals (rejection_counts.py)."""
        self._append_s.observe(took_s)
        stored: Sequence[Part] = group
        if any(outcomes):
            stored = [part for part, outcome in zip(group, outcomes, strict=True) if outcome is False]
            self._repeated.value += sum([outcome is True for outcome in outcomes])
        records = sum([part.load.size for part in stored]) - resent
        self._resent.value += resent
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
