"""Signal handlers installed before the slow imports, so that SIGTERM during startup exits cleanly."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn


def begin() -> None:
    """Exit with status 0 on SIGTERM and SIGINT until the program installs its own handlers; no work has begun yet."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(0)  # an exception could crash a C library that is only partly loaded
