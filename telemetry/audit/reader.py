"""Reads the audit log of all programs in order of time."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from telemetry.audit.entry import Entry
from telemetry.audit.writer import SUFFIX, closed

PLACE = re.compile(r"[-0-9T:.]{26}Z/[0-9a-f]{16}/[a-z]{4,7}", re.ASCII)
"""Format of a cursor: the position of an entry."""

_AT = slice(len('{"at":"'), len('{"at":"2026-12-02T08:50:00.000000Z'))
_decode = msgspec.json.Decoder(Entry).decode


class Wanted(NamedTuple):
    """Filter of entries: from `since` (inclusive) to `until` (exclusive), after the cursor `after`.

    Times are texts in the format of entries. Empty = no filter. `key` is the actor's key, or the key that a rejected
    sender sent.
    """

    since: str = ""
    until: str = ""
    after: str = ""
    key: str = ""
    device: str = ""
    action: str = ""
    outcome: str = ""

    @property
    def first_at(self) -> str:
        """Lower bound of the times of matching entries."""
        return max(self.since, self.after.partition("/")[0])

    def fits(self, entry: Entry) -> bool:
        """True if the entry matches, apart from its time."""
        return (
            entry.place > self.after
            and (not self.action or entry.action == self.action or entry.action.startswith(f"{self.action}."))
            and (not self.outcome or entry.outcome == self.outcome)
            and (not self.device or entry.device == self.device)
            and (not self.key or self.key in (entry.actor.id, entry.details.get("key")))
        )


def entries(folder: Path, wanted: Wanted) -> Iterator[Entry]:
    """Matching entries, oldest first. Broken lines, as left by a full disk, are skipped. Raises `OSError`."""
    logs = [_log(folder, name, wanted) for name in _names(folder)]
    return (entry for entry in heapq.merge(*logs, key=lambda entry: entry.place) if wanted.fits(entry))


def _names(folder: Path) -> list[str]:
    """Program and kind of each log."""
    return sorted({path.name.partition(".")[0] for path in folder.glob(f"*{SUFFIX}")}) if folder.is_dir() else []


def _log(folder: Path, name: str, wanted: Wanted) -> Iterator[Entry]:
    """Entries of a program and kind in the order they were written."""
    files = [*closed(folder, name), folder / f"{name}{SUFFIX}"]
    return chain.from_iterable(_file(path, wanted) for path in files if not _is_older(path, wanted.first_at))


def _is_older(path: Path, first_at: str) -> bool:
    """True if the last line of a closed file, dated in its name, is before `first_at`."""
    stamp = path.name.removesuffix(SUFFIX).partition(".")[2]
    return bool(stamp) and stamp < "".join(digit for digit in first_at if digit.isdigit())


def _file(path: Path, wanted: Wanted) -> Iterator[Entry]:
    first, last = wanted.first_at.encode(), wanted.until.encode()
    try:
        file = path.open("rb")
    except FileNotFoundError:  # deleted meanwhile
        return
    with file:
        for line in file:
            at = line[_AT]
            if at < first or (last and at >= last):
                continue
            try:
                yield _decode(line)
            except msgspec.DecodeError:  # also for a line that is being written
                continue
