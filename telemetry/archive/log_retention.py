"""Retention of log entries and files that forwards still need.

A forward reads the log entry by entry. An entry that is not forwarded yet, and the files that it adds, must be kept
however long the receiver is unreachable. `Held` returns the version up to which all forwards are done, None without
forwards; NOTHING_DONE keeps everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from telemetry.archive import commit_log

NOTHING_DONE = -1

YOUNG_S = 43_200
"""Maximum age of unforwarded entries before the log is kept; cleanup deletes entries that are a day old, s."""

Held = Callable[[], int | None]


def nothing_held() -> int | None:
    """The function for a box without forwards."""
    return None


def holds_entries(log: Path, done: int | None, now_s: Callable[[], float] = time.time) -> bool:
    """True if cleanup of the log could delete an entry that is not forwarded."""
    if done is None:
        return False
    if done == NOTHING_DONE:
        return True
    age_s = commit_log.entry_age_s(log, done + 1, now_s())
    return age_s is not None and not -YOUNG_S < age_s < YOUNG_S
