"""A clock that tests set: Debian's libfaketime for every program of a box, including its Redis.

Monotonic clocks run on, as they do when a machine's clock is set. Redis is the bundled one: libfaketime and the
allocator of Debian's wait for each other.
"""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import pytest

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
SEEN_S = 3.0
"""Time after which every program uses the new clock: each reads the file again after a whole second."""


class FakeClock:
    """The clock of a box's programs. Skips the test if libfaketime is not installed."""

    def __init__(self, folder: Path) -> None:
        found = glob.glob(LIBRARY)
        if not found:
            pytest.skip("no libfaketime is installed: scripts/install-faketime")
        self.ahead_s = 0.0
        self._file = folder / "clock"
        self._write()
        self.environ = {
            "LD_PRELOAD": found[0],
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "WHIMBREL__REDIS__SERVER": "bundled",
        }

    def set(self, ahead_s: float) -> None:
        """Set the clock's offset from the right time, and wait until all programs use it."""
        self.ahead_s = ahead_s
        self._write()
        time.sleep(SEEN_S)

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.ahead_s:+.0f}\n", encoding="ascii")
        os.replace(new, self._file)
