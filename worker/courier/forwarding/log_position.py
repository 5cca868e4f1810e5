"""Position of a forward in the archive's log, and its backlog.

The log's entries are consecutive, so the last entry done defines the position. It is identified by its content, too:
after a restore to an older state, other entries have the numbers of entries already sent, and the position goes back to
the last common entry.
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
    """Result of a check of the log at a position.

    `back_to` is the version to go back to if the log is not the one that was sent, else None; `gap` is the number of
    entries deleted before they were done.
    """

    back_to: int | None
    gap: int


def look(log: Path, version: int, digest: str, done: Callable[[], Iterable[tuple[int, str]]]) -> Found:
    """Check that the log continues after `version`. `done` returns the versions that were sent, newest first.

    If none of them is in the log any more, go back to before the oldest entry: sending twice is better than never.
    """
    entries = commit_log.entries(log)
    if not entries:
        return Found(None, 0)
    if version >= 0 and not _is_in(log, version, digest, entries):
        return Found(next((v for v, d in done() if v < version and digest_at(log, v) == d), entries[0] - 1), 0)
    return Found(None, max(0, entries[0] - version - 1))


def _is_in(log: Path, version: int, digest: str, entries: list[int]) -> bool:
    """True if the entry is there, or was deleted after newer ones."""
    there = digest_at(log, version)
    return there == digest or not digest if there is not None else version < entries[0]


class Snapshot(NamedTuple):
    """Files of the table at a version; `since_ms` is when the oldest of them was made, ms since epoch."""

    version: int
    files: tuple[NewFile, ...]
    since_ms: int | None


class Waiting(NamedTuple):
    """A version in the backlog: its change, and when it was made, ms since epoch."""

    version: int
    records: int
    size_bytes: int
    at_ms: int


class Lag:
    """The backlog after a position. It reads each entry once, however long they wait."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._waiting: deque[Waiting] = deque()
        self.records = self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def look(self, version: int) -> None:
        """Add new entries, and remove those that are done."""
        while self._waiting and self._waiting[0].version <= version:
            self._count(self._waiting.popleft(), -1)
        following = self._waiting[-1].version + 1 if self._waiting else version + 1
        while (change := change_at(self._log, following)) is not None:
            self._waiting.append(Waiting(following, change.rows, change.saved_bytes, change.at_ms))
            self._count(self._waiting[-1], 1)
            following += 1

    def forget(self) -> None:
        """Read everything again: the log is another."""
        self._waiting.clear()
        self.records = self.size_bytes = 0

    def oldest_ms(self) -> int | None:
        """Time of the oldest version with new records, ms since epoch."""
        return next((entry.at_ms for entry in self._waiting if entry.records), None)

    def beyond(self, most_bytes: int) -> list[Waiting]:
        """The oldest versions, without which the others have at most `most_bytes`."""
        given_up, size_bytes = [], self.size_bytes
        for entry in self._waiting:
            if size_bytes <= most_bytes:
                break
            size_bytes -= entry.size_bytes
            given_up.append(entry)
        return given_up

    def _count(self, entry: Waiting, sign: int) -> None:
        self.records += sign * entry.records
        self.size_bytes += sign * entry.size_bytes


def with_backlog(change: Change, backlog: Iterable[NewFile]) -> Change:
    """The change with other added files than its own."""
    return change._replace(added=tuple(backlog), is_save=True)
