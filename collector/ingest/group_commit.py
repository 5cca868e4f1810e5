"""Group commit: stores decoded messages in the hot store, durably before the response.

While a call to Redis is in progress, new requests form the next group: concurrent senders share one function call and
one fsync. Each shard has a writer that makes the calls (shard_writer.py). The size of waiting requests is limited;
beyond it HTTP requests are rejected, and TCP connections are not read. Above the watermarks of memory and disk
everything is rejected (watermarks.py).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import redis

from collector.ingest.batch_order import Lane, Numbered
from collector.ingest.batching import NO_LOAD, Load
from collector.ingest.day_limit import DeviceDays
from collector.ingest.fair_shares import Shares
from collector.ingest.shard_writer import Outcome, Part, Store, Tell, Writer
from collector.ingest.watermarks import Watermarks
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.append import UNLIMITED, Limits, Owner
from telemetry.model.errors import BusyError
from telemetry.model.record import Sent
from telemetry.observability import metrics
from telemetry.system import clock

SWITCH_S = 0.0005
"""Interpreter switch interval, s: shorter than the default, because a writer needs the GIL for each piece of a call
that it sends, while Redis waits for the last piece (docs/performance.md)."""


class Intake:
    """Stores records and reports when they are durable. All methods must be called in the event loop."""

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
        """Store the submitted records, then end the writers."""
        await asyncio.gather(*[writer.stop() for writer in self._writers])

    @property
    def newest_ms(self) -> int:
        """The greatest value of the box's clock at an arrival, as last reported by Redis, ms since epoch."""
        return max((writer.newest_ms for writer in self._writers), default=0)

    @property
    def has_room(self) -> bool:
        """False while the waiting records exceed the limit."""
        return self._pending_bytes < self._max_pending_bytes

    async def room(self) -> None:
        """Wait until there is room."""
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
        """Store the records of one request; return when they and `aside` are durable.

        `cost_bytes` is their size for the limit. Records with a `name` are stored once, however often they are sent.
        `limits_days` is false for senders that cannot be asked to wait. Raises `BusyError` if they cannot be stored now
        (`TooManyDays` if their device must wait), `KeyReusedError` if `name` was used with another `body_hash`. With
        several shards a failure may leave a part stored; a retry with the same name stores the rest.
        """
        if not self.has_room:
            raise BusyError("more records are waiting for the store than may", retry_after_s=1)
        if limits_days and (excess := self._device_days.excess(records)) is not None:
            raise excess
        done, tell = self._future()
        begun_s, load = time.monotonic(), self._load(records)
        part = Part(load, cost_bytes, name, body_hash, tell, begun_s, aside=aside, owner=owner)
        parts = self._parts(part, records)
        if name:
            await self._put_home(parts, part)
        self._put_all(parts, part)
        await done

    async def _put_home(self, parts: dict[int, Part], part: Part) -> None:
        """Store a request's part in the shard of its name, which decides for all shards whether the name is new.

        Removes it from `parts`.
        """
        home = shard_of(part.name, self._shards)
        done, tell = self._future()
        self._put(home, parts.pop(home, part._replace(load=NO_LOAD))._replace(tell=tell, aside=()))
        await done

    async def submit_numbered(
        self, records: Sequence[Sent], cost_bytes: int, sender: str, number: int, owner: Owner = UNLIMITED
    ) -> bool:
        """Like `submit`, for a sender that numbers its batches and waits for each response; True if it was stored
        before.

        Raises `BusyError` if it cannot be stored now: the same number must be sent again before any greater one.
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
        """Like `submit`, but without waiting, and without checking for room, which the caller must do.

        A numbered batch is stored once; the result is True if it was stored before. A batch without records skips its
        number in every shard. `aside` is in quarantine when the result is set.
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
        """The same with a callback instead of a future, which is cheaper. The callbacks of a group are called one after
        the other, and must not raise.
        """
        excess = self._device_days.excess(records)
        if excess is not None and numbered is None and self._loop is not None:
            self._loop.call_soon(tell, excess)
            return
        sender, number, lane, owner = numbered or ("", 0, None, owner)
        begun_s, load = time.monotonic(), self._load(records)
        part = Part(load, cost_bytes, sender, b"", tell, begun_s, number, lane, aside, excess, owner)
        is_skip = numbered is not None and not records
        self._put_all(dict.fromkeys(range(self._shards), part) if is_skip else self._parts(part, records), part)

    def _future(self) -> tuple[asyncio.Future[bool], Tell]:
        """A future, and the function that sets its result."""
        if self._loop is None:
            raise BusyError("the intake is not running")
        done: asyncio.Future[bool] = self._loop.create_future()
        return done, partial(_settle, done)

    def _load(self, records: Sequence[Sent]) -> Load:
        """The load of a request's records. With several shards each has its own (`_parts`)."""
        return Load.of(records) if self._shards == 1 else NO_LOAD

    def _parts(self, part: Part, records: Sequence[Sent]) -> dict[int, Part]:
        """A request's part for each shard that has a device of its records. With one shard that is `part`."""
        if self._shards == 1:
            return {0: part} if records else {}
        by_shard: dict[int, list[Sent]] = {}
        for sent in records:
            by_shard.setdefault(shard_of(sent.device_id, self._shards), []).append(sent)
        return {shard: part._replace(load=Load.of(some)) for shard, some in by_shard.items()}

    def _put_all(self, parts: dict[int, Part], whole: Part) -> None:
        """Queue the parts of all shards, and the request's `aside`; its `tell` is called once all results are known."""
        waits = len(parts) + bool(whole.aside)
        if waits == 0:
            whole.tell(False)
        elif waits == 1 and parts:
            for shard, part in parts.items():
                self._put(shard, part)
        else:
            tell = _Joined(waits, whole.tell)
            for shard, part in parts.items():
                self._put(shard, part._replace(tell=tell, aside=()))
            if whole.aside:
                self._put(0, Part(NO_LOAD, 0, "", b"", tell, whole.begun_s, aside=whole.aside))

    def _put(self, shard: int, part: Part) -> None:
        if self._loop is None:
            raise BusyError("the intake is not running")
        self._pending_bytes += part.cost_bytes
        if not self.has_room:
            self._room.clear()
        self._writers[shard].put(part)

    def _tell(self, group: Sequence[Part], outcomes: Sequence[Outcome], took_s: float, resent: int) -> None:
        """Report the results of a group; its call took `took_s`, and `resent` of its records were repeats."""
        self._measured.note(group, outcomes, took_s, resent)
        for part, outcome in zip(group, outcomes, strict=True):
            self._pending_bytes -= part.cost_bytes
            part.tell(outcome)
        if self.has_room:
            self._room.set()


class _Measured:
    """Metrics of the intake, updated in the event loop, so that the writers' threads need no lock."""

    def __init__(self) -> None:
        self._accepted = metrics.ACCEPTED.one
        self._repeated = metrics.REPEATED.one
        self._resent = metrics.RESENT.one
        self._ack_s = metrics.ACK_S.one
        self._group_records = metrics.GROUP_RECORDS.one
        self._append_s = metrics.APPEND_S.one

    def note(self, group: Sequence[Part], outcomes: Sequence[Outcome], took_s: float, resent: int) -> None:
        """Count the new and repeated records of a group; failures are counted as rejections (rejection_counts.py)."""
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
    """Collects the results of a request's parts, and reports the whole: the first failure, or whether all were stored
    before.
    """

    def __init__(self, parts: int, tell: Tell) -> None:
        self._parts = parts
        self._tell = tell
        self._outcomes: list[Outcome] = []

    def __call__(self, outcome: Outcome) -> None:
        """Add the result of a part."""
        self._outcomes.append(outcome)
        if len(self._outcomes) == self._parts:
            failures = [one for one in self._outcomes if isinstance(one, Exception)]
            self._tell(failures[0] if failures else all(self._outcomes))


def _settle(done: asyncio.Future[bool], outcome: Outcome) -> None:
    if done.done():  # the waiting task was cancelled
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
