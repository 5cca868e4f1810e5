"""Notifications to systemd: the program is ready, and its event loop is alive (watchdog).

Protocol: sd_notify(3), datagrams to the socket in NOTIFY_SOCKET. WATCHDOG_USEC is the maximum interval of keep-alives
in µs, WATCHDOG_PID the process that must send them. Without these variables nothing is sent. If a program is stopped or
its loop hangs, keep-alives stop, and systemd restarts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping

SIGNS = 4
"""Keep-alives within the maximum interval."""

IDLE_S = 5.0
"""Interval of the event loop's timer without a watchdog, s."""


class Watchdog:
    """Sends keep-alives of this process. Runs in the program's own loop: a thread would hide a hanging loop."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        within_us = int(environ.get("WATCHDOG_USEC") or 0)
        if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            within_us = 0
        self.every_s = within_us / 1e6 / SIGNS
        self._next_s = 0.0
        self._is_ready = False

    def beat(self) -> None:
        """Send a keep-alive if due; the first call reports that the program is ready. Cheap, for frequent calls."""
        if not self._is_ready:
            self._is_ready = True
            self._tell("READY=1")
        if self.every_s and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self.every_s
            self._tell("WATCHDOG=1")

    def rest(self) -> None:
        """Report ready, and send no keep-alives from now on: the program has no loop any more and only sleeps."""
        self._tell("READY=1\nWATCHDOG_USEC=0")

    def stopping(self) -> None:
        """Report that the program is stopping."""
        self._tell("STOPPING=1")

    def in_event_loop(self) -> None:
        """Call `beat` from the running event loop until it ends."""
        self.beat()
        if self._address:
            asyncio.get_running_loop().call_later(min(self.every_s or IDLE_S, IDLE_S), self.in_event_loop)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            with contextlib.suppress(OSError):  # a full or missing socket loses one keep-alive
                sender.sendto(state.encode(), address)


watchdog = Watchdog()
"""The watchdog of this process."""
