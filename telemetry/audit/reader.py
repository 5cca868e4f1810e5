"""Reads the audit log of all programs, in the order of time."""

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
"""The place of an entry, as a cursor."""

_AT = slice(len('{"at":"'), len('{"at":"2026-12-02T08:50:00.000000Z'))
_decode = msgspec.json.Decoder(Entry).decode


class Wanted(NamedTuple):
    """Which entries: from `since` (inclusive) to `until` (exclusive), and behind `after`, the place of another.

    Moments are texts as entries have them. Empty is any. `key` is that of the actor, or the one that a refused sender
    showed.
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
        """No earlier line is wanted."""
        return max(self.since, self.after.partition("/")[0])

    def fits(self, entry: Entry) -> bool:
        """Whether it is one of them, its moment aside."""
        return (
            entry.place > self.after
            and (not self.action or entry.action == self.action or entry.action.startswith(f"{self.action}."))
            and (not self.outcome or entry.outcome == self.outcome)
            and (not self.device or entry.device == self.device)
            and (not self.key or self.key in (entry.actor.id, entry.details.get("key")))
        )


def entries(folder: Path, wanted: Wanted) -> Iterator[Entry]:
    """The entries, the oldest first. Lines that are broken, as after a full disk, are left out. Raises `OSError`."""
    logs = [_log(folder, name, wanted) for name in _names(folder)]
    return (entry for entry in heapq.merge(*logs, key=lambda entry: entry.place) if wanted.fits(entry))


def _names(folder: Path) -> list[str]:
    """Program and kind of each log."""
    return sorted({path.name.partition(".")[0] for path in folder.glob(f"*{SUFFIX}")}) if folder.is_dir() else []


def _log(folder: Path, name: str, wanted: Wanted) -> Iterator[Entry]:
    """The entries of a program and kind, in the order in which they were written."""
    files = [*closed(folder, name), folder / f"{name}{SUFFIX}"]
    return chain.from_iterable(_file(path, wanted) for path in files if not _is_older(path, wanted.first_at))


def _is_older(path: Path, first_at: str) -> bool:
    """Whether a closed file's last line, which its name dates, lies before what is wanted."""
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
            except msgspec.DecodeError:  # also of a line that is being written
                continue
