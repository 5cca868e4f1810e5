"""Under which name a file is imported: its content's, and how often it was begun.

How far an import is stands in the archive's table, beside its records (worker/imports.py). Here stands only with what
options one was begun, in `imports/<name>.json` of the data folder: rows must not be read one way up to where it was
cut off, and another way behind. Without these files nothing is lost but that check.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from telemetry.archive import Archive
from telemetry.durable import fsync, make_folder
from telemetry.errors import SenderError
from telemetry.hot import Shard


class Journal:
    """Names imports. `folder` holds the options of each."""

    def __init__(self, folder: Path, archive: Archive, shards: Sequence[Shard]) -> None:
        self._folder = folder
        self._archive = archive
        self._shards = shards

    def name(self, digest: str, options: Mapping[str, str], file: Path, again: bool) -> str:
        """The name of the import of a file: of the last that was begun; with `again` of a new one, if that is whole.

        Raises `SenderError` if it was begun with other options.
        """
        number = self._last(digest)
        is_same = self._begun(f"{digest}-{number}") in (None, dict(options))
        if again and (self._is_whole(f"{digest}-{number}") or not is_same):
            number, is_same = number + 1, True
        name = f"{digest}-{number}"
        if not is_same:
            raise SenderError(
                f"{file} was imported with other options, as {self._folder / name}.json says; "
                "give the same ones, or --again to add its rows once more"
            )
        self._note(name, options, file)
        return name

    def _last(self, digest: str) -> int:
        number = 0
        while self._is_begun(f"{digest}-{number + 1}"):
            number += 1
        return number

    def _is_begun(self, name: str) -> bool:
        table = self._archive.open_existing()
        return any(self._archive.progress(table, name, shard.shard) is not None for shard in self._shards)

    def _is_whole(self, name: str) -> bool:
        table = self._archive.open_existing()
        found = [self._archive.progress(table, name, shard.shard) for shard in self._shards]
        return all(progress is not None and progress.is_whole for progress in found)

    def _begun(self, name: str) -> dict[str, str] | None:
        """The options with which an import was begun; None if that isn't known, or nothing came of it."""
        if not self._is_begun(name):
            return None
        with contextlib.suppress(OSError, ValueError, KeyError):
            return dict(json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))["options"])
        return None

    def _note(self, name: str, options: Mapping[str, str], file: Path) -> None:
        path = self._folder / f"{name}.json"
        make_folder(self._folder, 0o700)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_text(json.dumps({"file": str(file.resolve()), "options": dict(options)}), encoding="utf-8")
        fsync(part)
        part.replace(path)
        fsync(self._folder)
