"""Under which name a file is imported: its content's, and how often it was begun.

How far an import is stands in the archive's table, beside its records (worker/bulk_import.py). Here stands only with
what options one was begun, in `imports/<name>.json` of the data folder: rows must not be read one way up to where it
was cut off, and another way behind. Without these files nothing is lost but that check.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from telemetry.archive.operations import import_progress
from telemetry.archive.operations.import_progress import Progress
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import SenderError
from telemetry.system.fsync import fsync, make_folder

ID_CHARACTERS = 12

WHOLE, EMPTY, CUT_OFF, UNDOING, UNDONE = "whole", "nothing imported", "cut off", "undo cut off", "undone"


class Begun(NamedTuple):
    """An import: when it was begun, s since epoch; records that it brought, None if not known; how far it is."""

    name: str
    file: str
    begun_s: float
    records: int | None
    state: str


def short(name: str) -> str:
    """The id of an import, for people: the beginning of its file's digest, and its number."""
    digest, _, number = name.rpartition("-")
    return f"{digest[:ID_CHARACTERS]}-{number}"


def _state(progress: Sequence[Progress], shards: int, records: int | None) -> str:
    is_whole = len(progress) == shards and all(one.is_whole for one in progress)
    if any(one.is_undone for one in progress):
        return UNDONE if is_whole and all(one.is_undone for one in progress) else UNDOING
    if not is_whole:
        return CUT_OFF
    return EMPTY if records == 0 else WHOLE


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
        number = self.last(digest)
        if self._is_undone(f"{digest}-{number}"):
            number += 1
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

    def last(self, digest: str) -> int:
        """The number of the last import of a file that was begun, 0 if there is none."""
        number = 0
        while self._is_begun(f"{digest}-{number + 1}"):
            number += 1
        return number

    def _is_undone(self, name: str) -> bool:
        table = self._archive.open_existing()
        found = [import_progress.progress(table, name, shard.shard) for shard in self._shards]
        return any(progress is not None and progress.is_undone for progress in found)

    def entries(self) -> list[Begun]:
        """All imports that came to anything, the first that was begun first."""
        found = [self._begun_of(path) for path in sorted(self._folder.glob("*.json"))]
        return sorted((one for one in found if one is not None), key=lambda one: one.begun_s)

    def _begun_of(self, path: Path) -> Begun | None:
        table, name = self._archive.open_existing(), path.stem
        progress = [import_progress.progress(table, name, shard.shard) for shard in self._shards]
        known = [one for one in progress if one is not None]
        if table is None or not known:
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            file, begun_s = str(told["file"]), float(told.get("begun_s", path.stat().st_mtime))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            file, begun_s = "", 0.0
        ids = [import_progress.imported_ids(table, name, shard.shard, len(self._shards)) for shard in self._shards]
        records = None if None in ids else sum(len(one) for ranges in ids for one in ranges or ())
        return Begun(name, file, begun_s, records, _state(known, len(self._shards), records))

    def find(self, wanted: str) -> str:
        """The name of the import with an id, or of that name. Raises `SenderError` if there is none, or several."""
        if self._is_begun(wanted):
            return wanted
        found = [one.name for one in self.entries() if short(one.name) == wanted]
        if len(found) != 1:
            raise SenderError(f"there is no import {wanted!r}; `whimbrel import --list` lists them")
        return found[0]

    def _is_begun(self, name: str) -> bool:
        table = self._archive.open_existing()
        return any(import_progress.progress(table, name, shard.shard) is not None for shard in self._shards)

    def _is_whole(self, name: str) -> bool:
        table = self._archive.open_existing()
        found = [import_progress.progress(table, name, shard.shard) for shard in self._shards]
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
        told = {"file": str(file.resolve()), "options": dict(options), "begun_s": self._begun_s(path)}
        part.write_text(json.dumps(told), encoding="utf-8")
        fsync(part)
        part.replace(path)
        fsync(self._folder)

    @staticmethod
    def _begun_s(path: Path) -> float:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(path.read_text(encoding="utf-8"))["begun_s"])
        return time.time()
