"""Files of the archive's commit log: synced, shortened, and repaired after a power cut.

    _delta_log/<version>.json                  an entry: one commit, one JSON object a line
    _delta_log/<version>.checkpoint.parquet    all entries up to that version in one file
    _delta_log/_last_checkpoint                version of the last checkpoint
    _delta_log/<name>.torn                     set aside by `mend`

deltalake makes each of these visible before its bytes are on disk, and syncs nothing. A commit therefore counts only
once `make_last` has returned: nothing is trimmed from Redis and no file is deleted before. A power cut before that may
leave an entry truncated, empty or missing although a later one exists, and then the table cannot be opened. `mend`
removes such entries: no program has relied on them, and their changes are made again.

Log entries are deleted only after the checkpoint that replaces them is on disk.
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
"""More than the maximum of concurrent commits: saves of all shards, a compaction, a recovery."""

ACTIONS = "whimbrel.actions"
"""Field in an entry's first line: number of the lines that follow. It detects an entry truncated between two lines."""

_ENTRY, _CHECKPOINT, _HINT = ".json", ".checkpoint.parquet", "_last_checkpoint"


def make_last(log: Path) -> None:
    """Sync the newest entries and the newest checkpoint to disk.

    Older ones were synced by the commit or recovery that followed them.
    """
    entries = [_name(version, _ENTRY) for version in _versions(log, _ENTRY)[-ENTRIES_SYNCED:]]
    checkpoints = [_name(version, _CHECKPOINT) for version in _versions(log, _CHECKPOINT)[-1:]]
    for name in (*entries, *checkpoints, *([_HINT] if (log / _HINT).exists() else [])):
        fsync(log / name)
    fsync(log)


def folder(root: Path) -> Path:
    """Folder of the log of the table in `root`."""
    return root / "_delta_log"


def entry(log: Path, version: int) -> bytes | None:
    """The bytes of an entry; None if it does not exist or was deleted."""
    try:
        return (log / _name(version, _ENTRY)).read_bytes()
    except FileNotFoundError:
        return None


def entries(log: Path) -> list[int]:
    """Versions of the existing entries."""
    try:
        return _versions(log, _ENTRY)
    except FileNotFoundError:
        return []


def entry_age_s(log: Path, version: int, now_s: float) -> float | None:
    """Age of an entry; None without entry."""
    try:
        return now_s - (log / _name(version, _ENTRY)).stat().st_mtime
    except FileNotFoundError:
        return None


def stamp(log: Path, version: int) -> tuple[int, int] | None:
    """Identity of an entry's file, which changes when another entry replaces it; None without entry."""
    try:
        status = (log / _name(version, _ENTRY)).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def is_newest(log: Path, version: int) -> bool:
    """True if no commit followed a version, not even one whose entry was deleted since."""
    hinted = _hinted(log)
    return (hinted is None or hinted <= version) and not (log / _name(version + 1, _ENTRY)).exists()


def entry_name(version: int) -> str:
    """The path of an entry from the table's root."""
    return f"_delta_log/{_name(version, _ENTRY)}"


def checkpoint_name(version: int) -> str:
    """The path of a checkpoint from the table's root."""
    return f"_delta_log/{_name(version, _CHECKPOINT)}"


HINT_NAME = f"_delta_log/{_HINT}"
"""Path of `_last_checkpoint` from the table's root."""


def hint(log: Path, version: int) -> bytes | None:
    """The bytes of `_last_checkpoint` if it names the checkpoint of `version`."""
    try:
        content = (log / _HINT).read_bytes()
        return content if json.loads(content)["version"] == version else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def version_of(path: str) -> int | None:
    """The version in the name of a log file; None for other files."""
    stem = path.rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isdecimal() else None


def checkpoints(log: Path) -> list[int]:
    """Versions of the existing checkpoints."""
    return _versions(log, _CHECKPOINT)


def newest_checkpoint(log: Path) -> int:
    """Version of the newest checkpoint, -1 without one."""
    return max(checkpoints(log), default=-1)


def checkpoint_bytes(log: Path, version: int) -> int:
    """Size of the checkpoint of a version, bytes; 0 without one."""
    try:
        return (log / _name(version, _CHECKPOINT)).stat().st_size
    except FileNotFoundError:
        return 0


def paths_of(log: Path, version: int) -> list[str]:
    """Paths from the table's root of the log files of a version, including its existing history.

    Raises `FileNotFoundError` if a file is missing because it was deleted after a newer checkpoint.
    """
    checkpoint = max((candidate for candidate in checkpoints(log) if candidate <= version), default=-1)
    versions = [candidate for candidate in entries(log) if candidate <= version]
    if missing := set(range(checkpoint + 1, version + 1)) - set(versions):
        raise FileNotFoundError(f"the archive's log lacks version {min(missing)}")
    return [*([checkpoint_name(checkpoint)] if checkpoint >= 0 else []), *map(entry_name, versions)]


def mend(log: Path) -> list[str]:
    """Set aside files torn by a power cut. Returns the new names.

    A table in use is never changed: an entry gets its name only when other processes can read all of it.
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
    """Lock against concurrent repairs, which could take a new entry for a torn one."""
    descriptor = os.open(log, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _torn_checkpoint(log: Path) -> list[str]:
    """The newest checkpoint if it cannot be read, and `_last_checkpoint` if its checkpoint is missing.

    Older checkpoints, or all entries, still exist then.
    """
    newest = newest_checkpoint(log)
    if newest >= 0 and not _can_be_read(log / _name(newest, _CHECKPOINT)):
        return [_name(newest, _CHECKPOINT), *([_HINT] if (log / _HINT).exists() else [])]
    hinted = _hinted(log)
    is_there = hinted is None or (log / _name(hinted, _CHECKPOINT)).exists()
    return [] if is_there or _hinted(log) != hinted else [_HINT]  # checked twice: a table in use may have changed


def _hinted(log: Path) -> int | None:
    """The version in `_last_checkpoint`; None if there is none, which readers accept."""
    try:
        return int(json.loads((log / _HINT).read_bytes())["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _can_be_read(checkpoint: Path) -> bool:
    try:
        pq.read_table(checkpoint)
    except FileNotFoundError:
        return True  # another process made a newer one and deleted it
    except (pa.ArrowException, OSError):
        return False
    return True


def _torn_entries(log: Path) -> list[str]:
    """The first entry that is incomplete or missing, and all entries after it."""
    checkpoint, newest = newest_checkpoint(log), max(_versions(log, _ENTRY), default=-1)
    versions = range(max(checkpoint + 1, newest - ENTRIES_SYNCED + 1), newest + 1)
    bad = next((version for version in versions if not _is_whole(log / _name(version, _ENTRY), version)), None)
    if bad is None or newest_checkpoint(log) != checkpoint:  # a new checkpoint of a table in use: old entries may go
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
