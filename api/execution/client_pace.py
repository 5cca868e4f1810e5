"""Pace at which a client takes a response. Counts only the time in which the response waits for the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from starlette.types import Send

from telemetry.config.settings import Api


class MinimumPace(NamedTuple):
    """The bytes per second that a client has to take, on average of a window in seconds. 0 bytes = off."""

    bytes_per_s: int = 0
    window_s: float = 10.0


def minimum_pace(settings: Api) -> MinimumPace:
    """That of the settings."""
    return MinimumPace(settings.min_read_bytes_per_s, settings.min_read_window_s)


class Pace:
    """The pace of one client. Each piece that is sent is one `begin`, and one `end` once there is room for the next.

    A piece counts as taken when it begins: whoever takes it at all has `window_s` and its size for it.
    """

    def __init__(self, minimum: MinimumPace, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._minimum = minimum
        self._clock_s = clock_s
        self._bytes = 0
        self._waited_s = 0.0
        self._began_s: float | None = None
        self._was_slow = False

    def begin(self, size_bytes: int) -> None:
        """A piece is handed to the connection."""
        self._bytes += size_bytes
        self._began_s = self._clock_s()

    def end(self) -> None:
        """The connection has room again."""
        self._waited_s = self._waited_so_far_s
        self._began_s = None
        least, window_s = self._minimum
        if self._waited_s >= window_s or self._bytes >= least * window_s:
            self._was_slow = self._is_below()
            self._bytes, self._waited_s = 0, 0.0

    @property
    def is_slow(self) -> bool:
        """Whether the client was too slow in the last window, or is in this one."""
        return self._is_below() if self._waited_so_far_s >= self._minimum.window_s else self._was_slow

    @property
    def _waited_so_far_s(self) -> float:
        return self._waited_s + (0.0 if self._began_s is None else self._clock_s() - self._began_s)

    def _is_below(self) -> bool:
        return self._bytes < self._minimum.bytes_per_s * self._waited_so_far_s


class PacedClient:
    """The client of one response. Within `with`, `end` cancels the current task; the cancellation stops there.

    It is a reader (slots.py) that loses its slot if it is slow while others wait.
    """

    def __init__(self, minimum: MinimumPace) -> None:
        self._pace = Pace(minimum)
        self._task: asyncio.Task[object] | None = None
        self.was_ended = False

    @property
    def is_slow(self) -> bool:
        """Whether it takes less than it has to."""
        return self._pace.is_slow

    def end(self) -> None:
        """Break the response off."""
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
