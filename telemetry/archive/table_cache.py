"""The archive's table as it was opened last, to be used again for as long as no commit came behind it.

To open a table is to read its log from the last checkpoint on, 0.1 to 0.3 ms of CPU an entry. A save did so twice and
the look for files to merge behind it once more: a third of the worker's CPU where saves had 50,000 records. Three looks
at the file system tell whether a handle is still that of the newest version.
"""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable

from telemetry.archive import commit_log


class TableCache:
    """Remembers one handle, for the archives of one thread that are given this."""

    def __init__(self) -> None:
        self._table: DeltaTable | None = None
        self._stamp: tuple[int, int] | None = None

    def note(self, table: DeltaTable, log: Path) -> None:
        """Remember a handle that was just opened."""
        self._table, self._stamp = table, commit_log.stamp(log, table.version())

    def newest(self, log: Path) -> DeltaTable | None:
        """The handle, if opening the table anew would come to the same version of the same log.

        One that was taken on meanwhile has another entry, and so another stamp. That the next entry is not there may
        also mean that it was cleaned away: then there is a checkpoint behind.
        """
        table = self._table
        if table is None or self._stamp is None:
            return None
        version = table.version()
        is_same = commit_log.stamp(log, version) == self._stamp
        return table if is_same and commit_log.is_newest(log, version) else None
