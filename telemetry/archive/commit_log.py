"""The archive's commit log as files: made to last, kept short, and mended after a power cut.

    _delta_log/<version>.json                  an entry: one commit, one JSON object a line
    _delta_log/<version>.checkpoint.parquet    all entries up to that version in one
    _delta_log/_last_checkpoint                where to begin reading
    _delta_log/<name>.torn                     set aside by `mend`

deltalake shows each of these under its name before its bytes are on disk, and syncs nothing. So a commit counts
only once `make_last` has returned: nothing is trimmed from Redis and no file deleted before that. A power cut
before it may leave an entry that is cut short, empty or missing with a later one there, and the table can't be
opened then. `mend` takes such entries away: nobody has relied on them, and what they said is done again.

Nothing that a checkpoint stands for is deleted before the checkpoint is on disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.system.fsync import fsync

ENTRIES_SYNCED = 25
"""More than the commits that can be under way at once: all shards' saves, a compaction, a recovery."""

ACTIONS = "whimbrel.actions"
"""Stands in an entry's first line: how many lines follow it. So one that was cut off between two lines is known."""

_ENTRY, _CHECKPOINT, _HINT = ".json", ".checkpoint.parquet", "_last_checkpoint"


def make_last(log: Path) -> None:
    """Have the newest entries and the newest checkpoint on disk.

    What is older than these was synced by the commit or recovery that came after it.
    """
    entries = [_name(version, _ENTRY) for version in _versions(log, _ENTRY)[-ENTRIES_SYNCED:]]
    checkpoints = [_name(version, _CHECKPOINT) for version in _versions(log, _CHECKPOINT)[-1:]]
    for name in (*entries, *checkpoints, *([_HINT] if (log / _HINT).exists() else [])):
        fsync(log / name)
    fsync(log)


def folder(root: Path) -> Path:
    """Where the log of the table in `root` is."""
    return root / "_delta_log"


def entry(log: Path, version: int) -> bytes | None:
    """The bytes of one entry; None if there is none, or none any more."""
    try:
        return (log / _name(version, _ENTRY)).read_bytes()
    except FileNotFoundError:
        return None


def entries(log: Path) -> list[int]:
    """The versions whose entries are there."""
    try:
        return _versions(log, _ENTRY)
    except FileNotFoundError:
        return []


def entry_age_s(log: Path, version: int, now_s: float) -> float | None:
    """How long ago an entry was made; None if there is none."""
    try:
        return now_s - (log / _name(version, _ENTRY)).stat().st_mtime
    except FileNotFoundError:
        return None


def stamp(log: Path, version: int) -> tuple[int, int] | None:
    """What tells an entry from one that took its place; None if there is none."""
    try:
        found = (log / _name(version, _ENTRY)).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def is_newest(log: Path, version: int) -> bool:
    """Whether no commit came after a version, nor one whose entry was cleaned away since."""
    hinted = _hinted(log)
    return (hinted is None or hinted <= version) and not (log / _name(version + 1, _ENTRY)).exists()


def entry_name(version: int) -> str:
    """The path of an entry from the table's root."""
    return f"_delta_log/{_name(version, _ENTRY)}"


def checkpoint_name(version: int) -> str:
    """The path of a checkpoint from the table's root."""
    return f"_delta_log/{_name(version, _CHECKPOINT)}"


HINT_NAME = f"_delta_log/{_HINT}"
"""The path of the hint from the table's root."""


def hint(log: Path, version: int) -> bytes | None:
    """The bytes of the hint if it names the checkpoint of `version`."""
    try:
        found = (log / _HINT).read_bytes()
        return found if json.loads(found)["version"] == version else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def version_of(path: str) -> int | None:
    """The version that a file of the log belongs to, by its name; None of the hint and of other files."""
    stem = path.rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isdecimal() else None


def checkpoints(log: Path) -> list[int]:
    """The versions of the checkpoints that are there."""
    return _versions(log, _CHECKPOINT)


def newest_checkpoint(log: Path) -> int:
    """Its version, -1 if there is none."""
    return max(checkpoints(log), default=-1)


def checkpoint_bytes(log: Path, version: int) -> int:
    """The size of the checkpoint of a version; 0 if there is none."""
    try:
        return (log / _name(version, _CHECKPOINT)).stat().st_size
    except FileNotFoundError:
        return 0


def paths_of(log: Path, version: int) -> list[str]:
    """Paths from the table's root of what makes its log that of a version, its past as far as it is there.

    Raises `FileNotFoundError` if a part of it is missing: cleaned away a moment ago, for a newer checkpoint.
    """
    checkpoint = max((one for one in checkpoints(log) if one <= version), default=-1)
    found = [one for one in entries(log) if one <= version]
    if missing := set(range(checkpoint + 1, version + 1)) - set(found):
        raise FileNotFoundError(f"the archive's log lacks version {min(missing)}")
    return [*([checkpoint_name(checkpoint)] if checkpoint >= 0 else []), *map(entry_name, found)]


def mend(log: Path) -> list[str]:
    """Set aside what a power cut left torn. Returns the new names.

    A live table is never touched: an entry gets its name only when all of it can be read by other processes.
    """
    with _alone(log):
        names = [*_torn_checkpoint(log), *_torn_entries(log)]
        for name in names:
            os.replace(log / name, log / f"{name}.torn")
        if names:
            fsync(log)
    return [f"{name}.torn" for name in names]


@contextlib.contextmanager
def _alone(log: Path) -> Iterator[None]:
    """Keep out others that mend: they would take an entry that was written anew for the torn one."""
    descriptor = os.open(log, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _torn_checkpoint(log: Path) -> list[str]:
    """The newest checkpoint if it can't be read, and the hint at one that isn't there.

    Older checkpoints, or all entries, are there still.
    """
    newest = newest_checkpoint(log)
    if newest >= 0 and not _can_be_read(log / _name(newest, _CHECKPOINT)):
        return [_name(newest, _CHECKPOINT), *([_HINT] if (log / _HINT).exists() else [])]
    hinted = _hinted(log)
    is_there = hinted is None or (log / _name(hinted, _CHECKPOINT)).exists()
    return [] if is_there or _hinted(log) != hinted else [_HINT]  # looked at twice: a live box's may have moved on


def _hinted(log: Path) -> int | None:
    """The version that `_last_checkpoint` names; None if it names none, which readers put up with."""
    try:
        return int(json.loads((log / _HINT).read_bytes())["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _can_be_read(checkpoint: Path) -> bool:
    try:
        pq.read_table(checkpoint)
    except FileNotFoundError:
        return True  # another process had a newer one and removed it
    except (pa.ArrowException, OSError):
        return False
    return True


def _torn_entries(log: Path) -> list[str]:
    """The first entry that is not whole or not there, and all behind it."""
    checkpoint, newest = newest_checkpoint(log), max(_versions(log, _ENTRY), default=-1)
    versions = range(max(checkpoint + 1, newest - ENTRIES_SYNCED + 1), newest + 1)
    bad = next((version for version in versions if not _is_whole(log / _name(version, _ENTRY), version)), None)
    if bad is None or newest_checkpoint(log) != checkpoint:  # a live box's new checkpoint: the old entries may go
        return []
    return [_name(version, _ENTRY) for version in _versions(log, _ENTRY) if version >= bad]


def _is_whole(entry: Path, version: int) -> bool:
    try:
        lines = [json.loads(line) for line in entry.read_bytes().splitlines()]
    except (FileNotFoundError, ValueError):
        return False
    if not lines or not all(isinstance(line, dict) for line in lines):
        return False
    if version == 0:
        return any("metaData" in line for line in lines)
    promised = lines[0].get("commitInfo", {}).get(ACTIONS)
    return promised is None or int(promised) == len(lines) - 1


def _name(version: int, end: str) -> str:
    return f"{version:020}{end}"


def _versions(log: Path, end: str) -> list[int]:
    stems = (name.removesuffix(end) for name in os.listdir(log) if name.endswith(end))
    return sorted(int(stem) for stem in stems if stem.isdecimal())
