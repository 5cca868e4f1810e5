"""What must stay of the archive's past because it has yet to be forwarded: log entries, and files that they add.

A forward reads the log entry by entry, so an entry that it has not done yet, and the files that such an entry
adds, must not be deleted however long its receiver is away. `Held` tells the version up to which all forwards
are done, and None where there is none to wait for; NOTHING_DONE holds everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from telemetry.archive import commit_log

NOTHING_DONE = -1

YOUNG_S = 43_200
"""Cleaning takes entries that are a day old; one that is not done must not come near that."""

Held = Callable[[], int | None]


def nothing_held() -> int | None:
    """There is no forward."""
    return None


def holds_entries(log: Path, done: int | None, now_s: Callable[[], float] = time.time) -> bool:
    """Whether cleaning the log could take an entry that is not done."""
    if done is None:
        return False
    if done == NOTHING_DONE:
        return True
    age_s = commit_log.entry_age_s(log, done + 1, now_s())
    return age_s is not None and not -YOUNG_S < age_s < YOUNG_S
