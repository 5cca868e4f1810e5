"""Caches the open table of the archive until a newer commit appears.

Opening a table reads its log from the last checkpoint on, which is expensive (docs/performance.md). Three file system
calls check whether a handle is still at the newest version.
"""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable

from telemetry.archive import commit_log


class TableCache:
    """Caches one handle, for the archives of one thread."""

    def __init__(self) -> None:
        self._table: DeltaTable | None = None
        self._stamp: tuple[int, int] | None = None

    def note(self, table: DeltaTable, log: Path) -> None:
        """Store a handle that was just opened."""
        self._table, self._stamp = table, commit_log.stamp(log, table.version())

    def newest(self, log: Path) -> DeltaTable | None:
        """The handle, if opening the table again would return the same version of the same log.

        An entry that was replaced has another stamp. If the next entry is missing, it may also have been deleted: then
        there is a newer checkpoint.
        """
        table = self._table
        if table is None or self._stamp is None:
            return None
        version = table.version()
        is_same = commit_log.stamp(log, version) == self._stamp
        return table if is_same and commit_log.is_newest(log, version) else None
