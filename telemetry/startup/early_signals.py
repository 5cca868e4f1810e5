"""What a program does before it loads anything else, so that a signal in its first second ends it as any later one."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn


def begin() -> None:
    """Until the program has its own way to stop, SIGTERM and SIGINT end it with 0: it has begun nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(0)  # not by an exception, which may meet a library in C that is half loaded, and crash there
