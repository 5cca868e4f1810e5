"""Rate at which a client reads a response. Only time in which the response waits for the client counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from starlette.types import Send

from telemetry.config.settings import Api


class MinimumPace(NamedTuple):
    """Minimum bytes per second that a client must read, as an average over a window in seconds. 0 bytes = off."""

    bytes_per_s: int = 0
    window_s: float = 10.0


def minimum_pace(settings: Api) -> MinimumPace:
    """The minimum pace from the settings."""
    return MinimumPace(settings.min_read_bytes_per_s, settings.min_read_window_s)


class Pace:
    """The pace of one client. Call `begin` for each piece that is sent, and `end` when there is room for the next.

    The bytes of a piece count from its beginning, so a client has at least `window_s` for each piece.
    """

    def __init__(self, minimum: MinimumPace, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._minimum = minimum
        self._clock_s = clock_s
        self._bytes = 0
        self._wait_s = 0.0
        self._start_s: float | None = None
        self._was_slow = False

    def begin(self, size_bytes: int) -> None:
        """Note that a piece is passed to the connection."""
        self._bytes += size_bytes
        self._start_s = self._clock_s()

    def end(self) -> None:
        """Note that the connection has room again."""
        self._wait_s = self._total_wait_s
        self._start_s = None
        min_bytes_per_s, window_s = self._minimum
        if self._wait_s >= window_s or self._bytes >= min_bytes_per_s * window_s:
            self._was_slow = self._is_below()
            self._bytes, self._wait_s = 0, 0.0

    @property
    def is_slow(self) -> bool:
        """True if the client was too slow in the last complete window, or is too slow in the current one."""
        return self._is_below() if self._total_wait_s >= self._minimum.window_s else self._was_slow

    @property
    def _total_wait_s(self) -> float:
        return self._wait_s + (0.0 if self._start_s is None else self._clock_s() - self._start_s)

    def _is_below(self) -> bool:
        return self._bytes < self._minimum.bytes_per_s * self._total_wait_s


class PacedClient:
    """The client of one response. Within `with`, `end` cancels the current task; the cancellation stops there.

    It implements `Reader` (slots.py), which loses its slot if it is slow while others wait.
    """

    def __init__(self, minimum: MinimumPace) -> None:
        self._pace = Pace(minimum)
        self._task: asyncio.Task[object] | None = None
        self.was_ended = False

    @property
    def is_slow(self) -> bool:
        """True if the client reads more slowly than the minimum pace."""
        return self._pace.is_slow

    def end(self) -> None:
        """Abort the response."""
        if self._task is not None and not self.was_ended:
            self.was_ended = True
            self._task.cancel()

    async def send(self, send: Send, body: bytes, more_body: bool) -> None:
        """Send a piece of the body; returns when there is room for the next."""
        self._pace.begin(len(body))
        try:
            await send({"type": "http.response.body", "body": body, "more_body": more_body})
        finally:
            self._pace.end()

    def __enter__(self) -> PacedClient:
        self._task = asyncio.current_task()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if not self.was_ended or task is None or kind is not asyncio.CancelledError:
            return False
        task.uncancel()
        return True
