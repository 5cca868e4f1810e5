"""What a program tells systemd, where that started it: that it is ready, and again and again that its loop still turns.

Protocol: sd_notify(3), datagrams to the socket that NOTIFY_SOCKET names; WATCHDOG_USEC says within how many µs the next
sign must come, WATCHDOG_PID from which process. Without them nothing is told. A program that is stopped, or whose
loop hangs, falls silent, and systemd starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping

SIGNS = 4
"""Signs of life within the time in which one must come."""

IDLE_S = 5.0
"""Between two looks of an event loop that must tell nothing."""


class Watchdog:
    """Tells signs of life of this process. Belongs to the program's own loop: a thread beside it would lie."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        within_us = int(environ.get("WATCHDOG_USEC") or 0)
        if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            within_us = 0
        self.every_s = within_us / 1e6 / SIGNS
        self._next_s = 0.0
        self._is_ready = False

    def beat(self) -> None:
        """The loop turned once: the first time says that the program is ready. Cheap; call it as often as you like."""
        if not self._is_ready:
            self._is_ready = True
            self._tell("READY=1")
        if self.every_s and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self.every_s
            self._tell("WATCHDOG=1")

    def rest(self) -> None:
        """Ready, and from here on without signs of life: the program has nothing to do and becomes one that sleeps."""
        self._tell("READY=1\nWATCHDOG_USEC=0")

    def stopping(self) -> None:
        """The program ends."""
        self._tell("STOPPING=1")

    def in_event_loop(self) -> None:
        """Beat from the running event loop for as long as it turns."""
        self.beat()
        if self._address:
            asyncio.get_running_loop().call_later(min(self.every_s or IDLE_S, IDLE_S), self.in_event_loop)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            with contextlib.suppress(OSError):  # a full or missing socket costs one sign
                sender.sendto(state.encode(), address)


watchdog = Watchdog()
"""That of this process."""
