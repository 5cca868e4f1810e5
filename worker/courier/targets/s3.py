"""S3 and compatible services: a copy of the table, readable by any tool like the archive.

Files named in a log entry are copied before the entry, and entries are copied in order, so that the copy always equals
a version of the table. A copy that begins late has all current files, then the log from its newest checkpoint on,
newest entry first: readers find no table until all of it is there, instead of an older version whose files are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from telemetry.archive import commit_log
from telemetry.archive.change_feed import Change
from telemetry.model.errors import SenderError
from worker.courier.targets.target import Sent

T = TypeVar("T")

LOG = commit_log.folder(Path()).name
REQUEST_S = 600
"""Timeout of a request, s: it sends up to 5 MiB over a slow link."""

MOST_AT_ONCE = 2
"""Concurrent parts of a file; each is kept in memory."""

SHOWN_CHARACTERS = 300


class S3:
    """A copy of the table in `root` below a bucket's prefix."""

    def __init__(self, root: Path, url: str, timeout_s: float, options: Mapping[str, str], sent: Sent) -> None:
        parts = urlsplit(url)
        self._root, self._log, self._sent = root, commit_log.folder(root), sent
        self._prefix = parts.path.strip("/")
        config: Any = {name: value for name, value in options.items() if value}
        self._store = S3Store(
            parts.netloc,
            config=config,
            client_options={
                "connect_timeout": timedelta(seconds=timeout_s),
                "timeout": timedelta(seconds=REQUEST_S),
                "allow_http": options.get("endpoint", "").startswith("http:"),
            },
            retry_config={"max_retries": 0},
        )
        self._checkpoint = -1

    def newest(self) -> int | None:
        """See target.py."""
        entries, checkpoints = self._versions()
        if not entries:
            return None
        newest = max(entries)
        copied = bytes(self._ask(lambda: obstore.get(self._store, self._key(commit_log.entry_name(newest))).bytes()))
        if copied != commit_log.entry(self._log, newest):
            raise SenderError("another table is there, or one with another history: use an empty prefix")
        return newest if _is_whole(entries, checkpoints) else None

    def begin(self, files: Sequence[str], version: int) -> None:
        """See target.py. Files that exist with the same size are not sent again."""
        checkpoint = max(
            (candidate for candidate in commit_log.checkpoints(self._log) if candidate <= version), default=-1
        )
        entries = {
            candidate: commit_log.entry(self._log, candidate)
            for candidate in range(version, max(checkpoint, 0) - 1, -1)
        }
        there = self._names("")
        for path in files:
            if there.get(path) != (self._root / path).stat().st_size:
                self._put_file(path)
        for candidate, entry in entries.items():
            if entry is not None or candidate != checkpoint:
                self._put_entry(candidate, entry)
        if checkpoint >= 0:
            self._put_checkpoint(checkpoint)

    def copy(self, change: Change) -> None:
        """See target.py."""
        for file in change.added:
            self._put_file(file.path)
        self._put_entry(change.version, commit_log.entry(self._log, change.version))
        checkpoint = commit_log.newest_checkpoint(self._log)
        if self._checkpoint < checkpoint <= change.version:
            self._put_checkpoint(checkpoint)

    def rewind(self, version: int) -> bool:
        """See target.py. The newest are deleted first, so that the copy always equals an older version."""
        names = self._names(LOG)
        above = {path: v for path in names if (v := commit_log.version_of(path)) is not None and v > version}
        hint = [path for path in names if path == commit_log.HINT_NAME]
        if any(path.endswith(".parquet") for path in above):
            self._delete(hint)
        for path in sorted(above, key=lambda path: -above[path]):
            self._delete([path])
        return _is_whole(*self._versions())

    def delete(self, paths: Sequence[str]) -> None:
        """See target.py."""
        self._delete(paths)

    def close(self) -> None:
        """See target.py."""

    def _put_checkpoint(self, version: int) -> None:
        """The checkpoint, then `_last_checkpoint`, unless a newer checkpoint replaces it now."""
        try:
            self._put_file(commit_log.checkpoint_name(version))
        except FileNotFoundError:
            return
        if (hint := commit_log.hint(self._log, version)) is not None:
            self._ask(lambda: obstore.put(self._store, self._key(commit_log.HINT_NAME), hint))
        self._checkpoint = version

    def _put_entry(self, version: int, entry: bytes | None) -> None:
        if entry is None:
            raise SenderError(f"the archive's log no longer has entry {version}")
        self._ask(lambda: obstore.put(self._store, self._key(commit_log.entry_name(version)), entry))
        self._sent(len(entry))

    def _put_file(self, path: str) -> None:
        with (self._root / path).open("rb") as file:
            self._ask(lambda: obstore.put(self._store, self._key(path), file, max_concurrency=MOST_AT_ONCE))
            self._sent(file.tell())

    def _delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._ask(lambda path=path: obstore.delete(self._store, self._key(path)))  # type: ignore[misc]

    def _versions(self) -> tuple[set[int], set[int]]:
        """Versions of the copy's entries, and of its checkpoints."""
        versions = [(path, v) for path in self._names(LOG) if (v := commit_log.version_of(path)) is not None]
        entries = {version for path, version in versions if path == commit_log.entry_name(version)}
        return entries, {version for path, version in versions if path == commit_log.checkpoint_name(version)}

    def _names(self, folder: str) -> dict[str, int]:
        """The copy's files in a folder, by path from the copy's root, with their sizes."""
        start = self._key(folder).rstrip("/")
        pages = self._ask(lambda: list(obstore.list(self._store, start or None)))
        cut = len(self._prefix) + 1 if self._prefix else 0
        return {item["path"][cut:]: item["size"] for page in pages for item in page}

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    @staticmethod
    def _ask(ask: Callable[[], T]) -> T:
        try:
            return ask()
        except BaseError as error:
            raise OSError(_in_words(error)) from error


def _is_whole(entries: set[int], checkpoints: set[int]) -> bool:
    """True if a log with these versions can be read: all entries after a checkpoint, or from the first on."""
    newest = max(entries, default=-1)
    checkpoint = max((candidate for candidate in checkpoints if candidate <= newest), default=-1)
    return newest >= 0 and entries.issuperset(range(checkpoint + 1, newest + 1))


def _in_words(error: BaseError) -> str:
    """The first lines of an obstore error, without its details."""
    text = " ".join(str(error).partition("\n\nDebug source:")[0].split())
    return f"S3: {text[:SHOWN_CHARACTERS]}"
