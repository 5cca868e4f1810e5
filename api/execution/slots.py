"""Fair, bounded concurrency: a limited number of slots, each granted to the waiting client that holds the fewest."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from typing import NamedTuple, Protocol

from api.requests.asker import THE_BOX, Asker
from telemetry.http.problem_responses import ProblemError
from telemetry.model import problems

MAX_REMEMBERED = 1_000
"""Maximum keys and addresses whose last turn is remembered; far more than the slots and waiting places."""

SLOW_CHECK_S = 0.25
"""Interval of checks for slow readers while a request waits for a slot."""


class SlotLimits(NamedTuple):
    """The number of slots, the maximum number of waiting requests, and how long one may wait. A `wait_s` of 0 = off.

    `share_percent` limits the waiting places of one key and of one address. With `shares_slots`, for slots without a
    time limit, it also limits their slots. Of several, at least one is left to others.
    """

    slots: int
    waiting: int
    wait_s: float
    share_percent: int = 100
    shares_slots: bool = False

    def share(self, places: int) -> int:
        """Maximum number of `places` that one key or address may hold."""
        if self.share_percent == 100 or places <= 1:
            return places
        return max(1, min(places - 1, places * self.share_percent // 100))


class Reader(Protocol):
    """A client that holds a slot while it reads a response."""

    @property
    def is_slow(self) -> bool:
        """True if it reads more slowly than required while others wait."""
        ...

    def end(self) -> None:
        """Make it release its slot soon. Called once."""
        ...


class Slot:
    """An occupied slot. `reader` may lose it if it is slow."""

    def __init__(self, slots: Slots, asker: Asker, reader: Reader | None) -> None:
        self.asker = asker
        self.reader = reader
        self.is_ending = False
        self._slots = slots

    def free(self) -> None:
        """Release the slot."""
        self._slots.free(self)


class _Counts:
    """Numbers of slots or waiting places for each key and address."""

    def __init__(self) -> None:
        self._keys = Counter[str]()
        self._addresses = Counter[str]()

    def add(self, asker: Asker, change: int) -> None:
        for counter, name in ((self._keys, asker.key_id), (self._addresses, asker.address)):
            if name:
                counter[name] += change
                if not counter[name]:
                    del counter[name]

    def of(self, asker: Asker) -> int:
        """The number for the same key or for the same address, whichever is greater."""
        return max(self._keys[asker.key_id], self._addresses[asker.address])


class _LastTurns:
    """The order in which keys and addresses had their last turn; the oldest ones are forgotten."""

    def __init__(self) -> None:
        self._last = OrderedDict[str, int]()
        self._count = 0

    def note(self, asker: Asker) -> None:
        self._count += 1
        for name in filter(None, asker):
            self._last[name] = self._count
            self._last.move_to_end(name)
        while len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)

    def last(self, asker: Asker) -> int:
        return max(self._last.get(name, 0) for name in asker)


class _Waiter:
    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.granted = asyncio.get_running_loop().create_future()


class Slots:
    """The slots of one kind of work; error messages name it with `plural`."""

    def __init__(self, limits: SlotLimits, plural: str) -> None:
        self._limits = limits
        self._plural = plural
        self._running: list[Slot] = []
        self._waiting: list[_Waiter] = []  # the oldest first
        self._slot_counts, self._waiting_counts, self._turns = _Counts(), _Counts(), _LastTurns()

    @property
    def count(self) -> int:
        """The number of occupied slots and waiting requests."""
        return len(self._running) + len(self._waiting)

    async def take(self, asker: Asker = THE_BOX, reader: Reader | None = None) -> Slot:
        """Wait for a slot, which the caller must free. Raises `ProblemError` if too many wait, or after `wait_s`."""
        waiter = _Waiter(Slot(self, asker, reader))
        self._waiting.append(waiter)
        self._waiting_counts.add(asker, 1)
        self._grant()
        try:
            if not waiter.granted.done():
                self._check_waiting(asker)
                await self._wait(waiter)
        except BaseException:
            self._leave(waiter)
            raise
        return waiter.slot

    def free(self, slot: Slot) -> None:
        """Release a slot and grant it to the next waiting request."""
        self._running.remove(slot)
        self._slot_counts.add(slot.asker, -1)
        self._grant()

    async def _wait(self, waiter: _Waiter) -> None:
        try:
            async with asyncio.timeout(self._limits.wait_s or None):
                while not waiter.granted.done():
                    self._end_slow(waiter.slot.asker)
                    await asyncio.wait((waiter.granted,), timeout=SLOW_CHECK_S)
        except TimeoutError:
            if not waiter.granted.done():
                raise self._busy(f"no slot for {self._plural} became free in {self._limits.wait_s:g} s") from None

    def _leave(self, waiter: _Waiter) -> None:
        if waiter.granted.done():
            self.free(waiter.slot)
        else:
            self._end_waiting(waiter)

    def _end_waiting(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        self._waiting_counts.add(waiter.slot.asker, -1)

    def _check_waiting(self, asker: Asker) -> None:
        """Reject a request that has just begun to wait if there are too many."""
        if len(self._waiting) > self._limits.waiting:
            raise self._busy(f"too many {self._plural} are waiting")
        if self._waiting_counts.of(asker) > self._limits.share(self._limits.waiting):
            raise self._busy(f"too many {self._plural} of this key or address are waiting")

    def _grant(self) -> None:
        """Grant free slots to the askers that hold the fewest; on a tie, to the one whose last turn is the oldest."""
        while len(self._running) < self._limits.slots:
            candidates = [waiter for waiter in self._waiting if self._may_run(waiter.slot.asker)]
            if not candidates:
                return
            waiter = min(candidates, key=self._priority)
            asker = waiter.slot.asker
            self._end_waiting(waiter)
            self._running.append(waiter.slot)
            self._slot_counts.add(asker, 1)
            self._turns.note(asker)
            waiter.granted.set_result(None)

    def _priority(self, waiter: _Waiter) -> tuple[int, int]:
        asker = waiter.slot.asker
        return self._slot_counts.of(asker), self._turns.last(asker)

    def _may_run(self, asker: Asker) -> bool:
        limits = self._limits
        return not limits.shares_slots or self._slot_counts.of(asker) < limits.share(limits.slots)

    def _end_slow(self, asker: Asker) -> None:
        """End a slow reader whose slot could be granted to `asker`, unless as many are ending as are waiting."""
        ending = sum(slot.is_ending for slot in self._running)
        if ending >= len(self._waiting):
            return
        needs_own = not self._may_run(asker)
        for slot in self._running:
            if needs_own and not asker.shares_with(slot.asker):
                continue
            if slot.reader is not None and not slot.is_ending and slot.reader.is_slow:
                slot.is_ending = True
                slot.reader.end()
                return

    def _busy(self, detail: str) -> ProblemError:
        retry_s = max(1, math.ceil(min(self._limits.wait_s, 5)))
        return ProblemError(problems.BUSY, detail, {"Retry-After": str(retry_s)})
