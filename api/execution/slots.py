"""A bounded number of slots, given in turn to the askers that hold the fewest, each within a bounded time."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from typing import NamedTuple, Protocol

from api.requests.asker import THE_BOX, Asker
from telemetry.http.problem_responses import ProblemError
from telemetry.model import problems

MAX_REMEMBERED = 1_000
"""Keys and addresses whose last turn is known; there are far fewer places."""

LOOK_S = 0.25
"""Between two looks for slow readers while somebody waits."""


class Terms(NamedTuple):
    """How many slots there are, and how many may wait for one, how long. A `wait_s` of 0 is no limit.

    `share_percent` bounds how many of the waiting places one key, and one address, holds; also how many slots if
    `shares_slots`, where a slot has no time limit. At least one of several is left to others.
    """

    slots: int
    waiting: int
    wait_s: float
    share_percent: int = 100
    shares_slots: bool = False

    def share(self, places: int) -> int:
        """How many of so many places one may hold."""
        if self.share_percent == 100 or places <= 1:
            return places
        return max(1, min(places - 1, places * self.share_percent // 100))


class Reader(Protocol):
    """Somebody for whom a slot is held, as long as reading takes."""

    @property
    def is_slow(self) -> bool:
        """Whether it reads more slowly than it has to while others wait."""
        ...

    def end(self) -> None:
        """Have it give up its slot soon. Called once."""
        ...


class Slot:
    """A slot that is held. `reader` may lose it if it is slow."""

    def __init__(self, slots: Slots, asker: Asker, reader: Reader | None) -> None:
        self.asker = asker
        self.reader = reader
        self.is_ending = False
        self._slots = slots

    def free(self) -> None:
        """Give it to the next."""
        self._slots.free(self)


class _Held:
    """How many of something each key and each address has."""

    def __init__(self) -> None:
        self._keys = Counter[str]()
        self._addresses = Counter[str]()

    def add(self, asker: Asker, change: int) -> None:
        for counter, name in ((self._keys, asker.key_id), (self._addresses, asker.address)):
            if name:
                counter[name] += change
                if not counter[name]:
                    del counter[name]

    def by(self, asker: Asker) -> int:
        """Those with the same key, or with the same address: the greater number."""
        return max(self._keys[asker.key_id], self._addresses[asker.address])


class _Turns:
    """When each key and each address had its last turn, of those that had one lately."""

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
    """The slots of one kind of work, which `plural` names in refusals."""

    def __init__(self, terms: Terms, plural: str) -> None:
        self._terms = terms
        self._plural = plural
        self._running: list[Slot] = []
        self._waiting: list[_Waiter] = []  # the oldest first
        self._held, self._awaited, self._turns = _Held(), _Held(), _Turns()

    @property
    def count(self) -> int:
        """How many run or wait."""
        return len(self._running) + len(self._waiting)

    async def take(self, asker: Asker = THE_BOX, reader: Reader | None = None) -> Slot:
        """A slot, to be freed. Raises `ProblemError` if too many wait, or none becomes free in time."""
        waiter = _Waiter(Slot(self, asker, reader))
        self._waiting.append(waiter)
        self._awaited.add(asker, 1)
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
        """Give a slot to the next."""
        self._running.remove(slot)
        self._held.add(slot.asker, -1)
        self._grant()

    async def _wait(self, waiter: _Waiter) -> None:
        try:
            async with asyncio.timeout(self._terms.wait_s or None):
                while not waiter.granted.done():
                    self._end_slow(waiter.slot.asker)
                    await asyncio.wait((waiter.granted,), timeout=LOOK_S)
        except TimeoutError:
            if not waiter.granted.done():
                raise self._busy(f"no slot for {self._plural} became free in {self._terms.wait_s:g} s") from None

    def _leave(self, waiter: _Waiter) -> None:
        if waiter.granted.done():
            self.free(waiter.slot)
        else:
            self._end_waiting(waiter)

    def _end_waiting(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        self._awaited.add(waiter.slot.asker, -1)

    def _check_waiting(self, asker: Asker) -> None:
        """Whether one that has just begun to wait may."""
        if len(self._waiting) > self._terms.waiting:
            raise self._busy(f"too many {self._plural} are waiting")
        if self._awaited.by(asker) > self._terms.share(self._terms.waiting):
            raise self._busy(f"too many {self._plural} of this key or address are waiting")

    def _grant(self) -> None:
        """Give free slots to those who hold the fewest, among them to who had no turn for the longest time."""
        while len(self._running) < self._terms.slots:
            fit = [one for one in self._waiting if self._may_run(one.slot.asker)]
            if not fit:
                return
            waiter = min(fit, key=lambda one: (self._held.by(one.slot.asker), self._turns.last(one.slot.asker)))
            self._end_waiting(waiter)
            self._running.append(waiter.slot)
            self._held.add(waiter.slot.asker, 1)
            self._turns.note(waiter.slot.asker)
            waiter.granted.set_result(None)

    def _may_run(self, asker: Asker) -> bool:
        return not self._terms.shares_slots or self._held.by(asker) < self._terms.share(self._terms.slots)

    def _end_slow(self, asker: Asker) -> None:
        """End a slow reader whose slot would go to an asker, unless as many are ending as wait."""
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
        retry_s = max(1, math.ceil(min(self._terms.wait_s, 5)))
        return ProblemError(problems.BUSY, detail, {"Retry-After": str(retry_s)})
