"""One moment of Redis and the archive: a copy of Redis, and a version of the table that belongs to it.

Redis is copied at a fork, and the exact instant of the fork is unknown. But each shard numbers its saves, and the table
may end with save N from the intent of N until the first trim of save N + 1 (`State.commits`). A number that is valid
before and after the fork is therefore valid for the copy. The copied version of the table must end with such numbers.
A box that starts on both copies finds the state after a power cut at the copy's instant: a save that is finished,
uncommitted or untrimmed. No record is doubled or missing.

If saves are so frequent that there is no such version, another copy is tried. tests/worker/backup_model.py explores
all interleavings of a backup with saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deltalake import DeltaTable

from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard, State

TRIES = 20
"""Of these each costs a fork; a second one is rarely needed, even under load."""


class Seen(NamedTuple):
    """All shards at about one moment."""

    states: tuple[State, ...]

    @property
    def unsaved(self) -> int:
        return sum(state.unsaved for state in self.states)


def seen(shards: Sequence[Shard]) -> Seen:
    """The current state of the shards."""
    return Seen(tuple(shard.state() for shard in shards))


def common(before: Seen, after: Seen) -> list[set[str]]:
    """Of each shard the numbers that its copy has for sure."""
    return [old.commits & new.commits for old, new in zip(before.states, after.states, strict=True)]


def fitting(archive: Archive, first: int, commits: Sequence[set[str]]) -> DeltaTable | None:
    """The newest version from `first` on that belongs to a copy with these numbers; None if there is none.

    Raises one of `READ_ERRORS`.
    """
    table = archive.open_existing()
    if table is None:
        return None
    for version in range(table.version(), max(first, 0) - 1, -1):
        if version != table.version():
            table.load_as_version(version)
        if belongs(archive, table, commits):
            return table
    return None


def belongs(archive: Archive, table: DeltaTable | None, commits: Sequence[set[str]]) -> bool:
    """Whether a table, or none, ends with saves of these numbers."""
    return all(archive.committed(table, shard) in known for shard, known in enumerate(commits))
