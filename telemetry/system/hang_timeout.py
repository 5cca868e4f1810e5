"""Ends a program whose event loop hangs, so that its supervisor starts it again.

The timer is faulthandler's: its thread is written in C and does not need the GIL, so it also ends a program that hangs
while it holds the GIL. It writes each thread's traceback to the log first. systemd's watchdog (systemd_notify.py) does
the same for programs that systemd started; this timer works with every supervisor.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager

TIMEOUT_S = 60.0
"""Longer than any call that blocks an event loop, such as one to an unresponsive Redis."""

RENEWALS = 12
"""Number of renewals of the timer within the timeout."""


@contextmanager
def hang_timeout(timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """End this process with status 1 if its running event loop does not run for `timeout_s` inside the `with` block."""
    timer = _Timer(timeout_s)
    timer.renew()
    try:
        yield
    finally:
        timer.cancel()


class _Timer:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()

    def renew(self) -> None:
        faulthandler.dump_traceback_later(self._timeout_s, exit=True)
        self._next = self._loop.call_later(self._timeout_s / RENEWALS, self.renew)

    def cancel(self) -> None:
        self._next.cancel()
        faulthandler.cancel_dump_traceback_later()
