"""Background loops that survive unexpected errors: each error is logged with its traceback and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from telemetry.observability import metrics

log = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0
MAX_WAIT_S = 15.0
"""Maximum wait, s. Short compared with the 300 s after which keys expire from the cache if they are not refreshed."""


async def run_periodically(
    name: str,
    every_s: float | Callable[[], float],
    action: Callable[[], Awaitable[object]],
    first_after_s: float | None = None,
) -> None:
    """Run an action, wait `every_s`, and repeat until cancelled. The first run is after `first_after_s`, by default
    `every_s`.

    After an error that the action did not handle, the wait is at least 1 s, doubles with each further error, and ends
    after at most 15 s or `every_s`, whichever is longer.
    """
    count_from_zero(name)
    failures = 0
    wait_s = first_after_s
    while True:
        if wait_s is None:
            wait_s = every_s() if callable(every_s) else every_s
        await asyncio.sleep(max(wait_s, backoff_s(failures)))
        wait_s = None
        try:
            await action()
            failures = 0
        except Exception:  # the next run may succeed, whatever the error was
            failures += 1
            note_error(name)


def count_from_zero(*names: str) -> None:
    """Create the error counters of background loops, with the value 0."""
    for name in names:
        metrics.LOOP_ERRORS.of(name)


def backoff_s(failures: int) -> float:
    """Seconds to wait after a number of consecutive failures."""
    return min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 10)) if failures else 0.0


def note_error(name: str) -> None:
    """Log and count the current exception of the named loop."""
    log.exception("the background loop %r failed unexpectedly and will be retried", name)
    metrics.LOOP_ERRORS.of(name).add()
