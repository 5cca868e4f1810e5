"""Changes of the archive's table per version, read from its log; the source for forwards.

The log is the only order in which records become part of the archive, independent of saves, merges and retention. A
save's entry names new files with new records; a merge's entry names files whose records were already forwarded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from telemetry.archive import commit_log
from telemetry.archive.added_file import NewFile
from telemetry.model.errors import ArchiveError

_SAVE = re.compile(r"whimbrel-\d+")
"""App transactions of saves (table.py: app_id). Only saves add records."""

_decode_line = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.decode


class Change(NamedTuple):
    """One version. `digest` identifies its entry: after a restore the same version may have another one."""

    version: int
    digest: str
    at_ms: int
    added: tuple[NewFile, ...]
    removed: tuple[str, ...]
    is_save: bool

    @property
    def saved(self) -> tuple[NewFile, ...]:
        """The files with new records."""
        return self.added if self.is_save else ()

    @property
    def rows(self) -> int:
        """Number of new records."""
        return sum(file.rows for file in self.saved)

    @property
    def saved_bytes(self) -> int:
        """Size of the files with new records, bytes."""
        return sum(file.size_bytes for file in self.saved)


def digest_of(entry: bytes) -> str:
    """Digest of the content of an entry."""
    return hashlib.sha256(entry).hexdigest()[:32]


def digest_at(log: Path, version: int) -> str | None:
    """Digest of a version's entry; None without entry."""
    content = commit_log.entry(log, version)
    return None if content is None else digest_of(content)


def change_at(log: Path, version: int) -> Change | None:
    """The change of a version; None without entry. Raises `ArchiveError` if it cannot be read."""
    entry = commit_log.entry(log, version)
    return None if entry is None else parse(version, entry)


def parse(version: int, entry: bytes) -> Change:
    """Parse an entry. Raises `ArchiveError`."""
    try:
        return _change(version, digest_of(entry), [_decode_line(line) for line in entry.splitlines() if line.strip()])
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ArchiveError(f"cannot read entry {version} of the archive's log: {error}") from error


def _change(version: int, digest: str, lines: Iterable[dict[str, msgspec.Raw]]) -> Change:
    at_ms, added, removed, is_save = 0, [], [], False
    for line in lines:
        for kind, raw in line.items():
            if kind == "add":
                added.append(_added(_decode(raw, type=_Add)))
            elif kind == "remove":
                removed.append(unquote(_decode(raw, type=_Path).path))
            elif kind == "txn":
                is_save |= _SAVE.fullmatch(_decode(raw, type=_Txn).appId) is not None
            elif kind == "commitInfo":
                at_ms = _decode(raw, type=_Info).timestamp
    return Change(version, digest, at_ms, tuple(added), tuple(removed), is_save)


def _added(add: _Add) -> NewFile:
    stats: Any = _decode(add.stats) if add.stats else None
    rows = stats.get("numRecords") if isinstance(stats, dict) else None
    return NewFile(unquote(add.path), add.size, rows if type(rows) is int else 0)


class _Path(msgspec.Struct):
    path: str


class _Add(msgspec.Struct):
    path: str
    size: int
    stats: str | None = None


class _Txn(msgspec.Struct):
    appId: str  # noqa: N815 (Delta's name)


class _Info(msgspec.Struct):
    timestamp: int = 0
