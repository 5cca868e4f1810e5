"""Newest records of devices in files of the archive, remembered: a file never changes under its name."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from cachetools import LRUCache

from api.answers import RecordAnswer

REMEMBERED_BYTES = 2**25
"""Memory limit for the records of all files."""

ENTRY_BYTES, RECORD_BYTES = 300, 700
"""Of a device in a file, and of each record beside its longer texts."""

MOST_BYTES = 2**16
"""Memory of one entry at most: records with longer texts are read again each time."""

Newest = Sequence[RecordAnswer]
"""A device's newest record in a file, and its newest with a place if that is another one; none if it has no record."""


class FileNewest:
    """Remembers the newest records of devices in whole files, for any number of threads."""

    def __init__(self) -> None:
        self._known: LRUCache[tuple[str, str], Newest] = LRUCache(REMEMBERED_BYTES, _bytes)
        self._lock = threading.Lock()

    def of(self, path: str, devices: Iterable[str]) -> dict[str, Newest]:
        """Those of some devices, of which the others are not known."""
        with self._lock:
            found = {device: self._known.get((path, device)) for device in devices}
        return {device: records for device, records in found.items() if records is not None}

    def note(self, path: str, found: Mapping[str, Newest]) -> None:
        """Remember what was found in all of a file."""
        with self._lock:
            for device, records in found.items():
                if _bytes(records) <= MOST_BYTES:
                    self._known[path, device] = records


def _bytes(records: Newest) -> int:
    return ENTRY_BYTES + sum(
        RECORD_BYTES + len(one.location or "") + len(bytes(msgspec.Raw(one.attributes or b""))) for one in records
    )
