"""Where a forward stands in the archive's log, and what lies before it.

The log's entries come one by one, so the last that is done says all. It says it by its content, too: where the archive
was put back to an older state, other entries have the numbers of those that were sent, and `Position` goes back to the
last one that both have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from telemetry.archive import commit_log
from telemetry.archive.added_file import NewFile
from telemetry.archive.change_feed import Change, change_at, digest_at


class Found(NamedTuple):
    """What a look at the log tells of a position.

    `back_to` is the version to go back to where the log isn't the one that was sent, else None; `gap` how many
    entries are gone that were not done.
    """

    back_to: int | None
    gap: int


def look(log: Path, version: int, digest: str, done: Callable[[], Iterable[tuple[int, str]]]) -> Found:
    """Whether the log goes on behind `version`. `done` gives the versions that were sent, the newest first.

    Where none of them is in the log any more, it goes back to before the oldest entry: better twice than never.
    """
    entries = commit_log.entries(log)
    if not entries:
        return Found(None, 0)
    if version >= 0 and not _is_in(log, version, digest, entries):
        return Found(next((v for v, d in done() if v < version and digest_at(log, v) == d), entries[0] - 1), 0)
    return Found(None, max(0, entries[0] - version - 1))


def _is_in(log: Path, version: int, digest: str, entries: list[int]) -> bool:
    """An entry that is gone was cleaned away if newer ones are there."""
    there = digest_at(log, version)
    return there == digest or not digest if there is not None else version < entries[0]


class Snapshot(NamedTuple):
    """What the table names at a version; `since_ms` is when the oldest of the files was made, ms since epoch."""

    version: int
    files: tuple[NewFile, ...]
    since_ms: int | None


class Waiting(NamedTuple):
    """One version that waits: what it brings, and when it was made, ms since epoch."""

    version: int
    records: int
    size_bytes: int
    at_ms: int


class Lag:
    """What lies before a position. It reads each entry once, however long they wait."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._waiting: deque[Waiting] = deque()
        self.records = self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def look(self, version: int) -> None:
        """Take what has come, and leave out what is done now."""
        while self._waiting and self._waiting[0].version <= version:
            self._count(self._waiting.popleft(), -1)
        following = self._waiting[-1].version + 1 if self._waiting else version + 1
        while (change := change_at(self._log, following)) is not None:
            self._waiting.append(Waiting(following, change.rows, change.saved_bytes, change.at_ms))
            self._count(self._waiting[-1], 1)
            following += 1

    def forget(self) -> None:
        """Read all anew: the log is another."""
        self._waiting.clear()
        self.records = self.size_bytes = 0

    def oldest_ms(self) -> int | None:
        """When the oldest that brings records was made."""
        return next((one.at_ms for one in self._waiting if one.records), None)

    def beyond(self, most_bytes: int) -> list[Waiting]:
        """The oldest, without which the others are no more than `most_bytes`."""
        given_up, size_bytes = [], self.size_bytes
        for one in self._waiting:
            if size_bytes <= most_bytes:
                break
            size_bytes -= one.size_bytes
            given_up.append(one)
        return given_up

    def _count(self, one: Waiting, sign: int) -> None:
        self.records += sign * one.records
        self.size_bytes += sign * one.size_bytes


def with_backlog(change: Change, backlog: Iterable[NewFile]) -> Change:
    """A version that counts as having added other files than its own."""
    return change._replace(added=tuple(backlog), is_save=True)
