"""Bandwidth limit of a forward."""

from __future__ import annotations

import threading
import time


class Pace:
    """Waits after each transfer for as long as it should have taken. Without a limit it never waits."""

    def __init__(self, bytes_per_s: int, stopped: threading.Event) -> None:
        self._bytes_per_s = bytes_per_s
        self._stopped = stopped
        self._free_s = 0.0

    def __call__(self, sent_bytes: int) -> None:
        """Count sent bytes, and wait."""
        if self._bytes_per_s:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + sent_bytes / self._bytes_per_s
            self._stopped.wait(self._free_s - now_s)
