"""Newest records of devices in files of the archive, remembered: a file never changes under its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from api.responses.record_schema import RecordAnswer
from api.snapshot.file_memory import FileMemory

REMEMBERED_BYTES = 2**25
"""Memory limit for the records of all files."""

ENTRY_BYTES, RECORD_BYTES = 300, 700
"""Memory of an entry, and of each of its records without longer texts."""

MOST_BYTES = 2**16
"""Memory of one entry at most: records with longer texts are read again each time."""

Newest = Sequence[RecordAnswer]
"""A device's newest record in a file, and its newest with a place if that is another one; none if it has no record."""


class FileNewest:
    """Remembers the newest records of devices in whole files, for any number of threads."""

    def __init__(self) -> None:
        self._known: FileMemory[tuple[str, str], Newest] = FileMemory(REMEMBERED_BYTES, _bytes)

    def of(self, path: str, devices: Iterable[str]) -> dict[str, Newest]:
        """The records of those of the devices that are remembered for a file."""
        found = {device: self._known.get((path, device)) for device in devices}
        return {device: records for device, records in found.items() if records is not None}

    def note(self, path: str, found: Mapping[str, Newest]) -> None:
        """Remember what was found in all of a file."""
        for device, records in found.items():
            if _bytes(records) <= MOST_BYTES:
                self._known.put((path, device), records)


def _bytes(records: Newest) -> int:
    return ENTRY_BYTES + sum(
        RECORD_BYTES + len(one.location or "") + len(bytes(msgspec.Raw(one.attributes or b""))) for one in records
    )
