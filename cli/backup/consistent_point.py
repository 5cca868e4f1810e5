"""One moment of Redis and the archive: a copy of Redis, and a version of the table that belongs to it.

Redis is copied at a fork, whose instant nobody can name. But a shard's saves are known by number, and the table may end
with a save of a number from its intent to the first trim of the save behind it, without a gap (`State.commits`). So a
number that is good before the fork and after it is good for the copy, too. The version to copy is one that ends with
such numbers: then a box that starts on the two finds what it would after a power cut, at the copy's instant: a save
that is finished, or one that has yet to be committed, or to be trimmed. Nothing is there twice, and nothing is missing.

If saves went on so fast that there is no such version, another moment is tried. tests/worker/backup_model.py explores
every order of this beside saves.
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
    """What the shards are now."""
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
