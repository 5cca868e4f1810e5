"""An answer that is dear to make, and may be some moments old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_TIMES = 10
LONGEST_KEPT_S = 10.0
"""An answer is kept so many times as long as it took to make, so that who reloads all the time takes a tenth of the
box; no longer than this, so that what took a time-out isn't shown long after it is over."""


class Kept(Generic[T]):
    """What one caller makes while the others wait for it, and all are given for some time."""

    def __init__(self, make: Callable[[], Awaitable[T]], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._make = make
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._made: tuple[T, float] | None = None

    async def get(self) -> T:
        """What was made last, or is made now."""
        async with self._lock:
            begun_s = self._monotonic()
            if self._made is None or begun_s >= self._made[1]:
                found = await self._make()
                done_s = self._monotonic()
                self._made = found, done_s + min(KEPT_TIMES * (done_s - begun_s), LONGEST_KEPT_S)
            return self._made[0]
