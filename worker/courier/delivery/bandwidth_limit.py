"""At most so many bytes a second, so that a forward leaves room on a thin link."""

from __future__ import annotations

import threading
import time


class Pace:
    """Told what was sent, it waits as long as that should have taken. Without a limit it never waits."""

    def __init__(self, bytes_per_s: int, stopped: threading.Event) -> None:
        self._bytes_per_s = bytes_per_s
        self._stopped = stopped
        self._free_s = 0.0

    def __call__(self, sent_bytes: int) -> None:
        """Count what was sent, and wait."""
        if self._bytes_per_s:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + sent_bytes / self._bytes_per_s
            self._stopped.wait(self._free_s - now_s)
