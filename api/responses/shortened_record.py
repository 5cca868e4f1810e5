"""Records whose long texts are cut until it is known which of them are in the answer.

To find the newest record of each device takes those of all, a thousand at once: with whole texts, 1 GB.
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.responses.record_schema import RecordAnswer

SHORT_BYTES = 2**14
"""Texts of a record that has more are cut."""


class Shortened(RecordAnswer, frozen=True, gc=False):
    """A record of which `location` and `attributes` are cut; whole they have `text_bytes`."""

    text_bytes: int


def text_bytes(record: RecordAnswer) -> int:
    """Bytes of a record's whole texts."""
    if isinstance(record, Shortened):
        return record.text_bytes
    return len((record.location or "").encode()) + len(bytes(msgspec.Raw(record.attributes or b"")))


def shortened(record: RecordAnswer, size: int) -> RecordAnswer:
    """A record, its texts cut if they have too many bytes; whole they have `size`."""
    if size <= SHORT_BYTES:
        return record
    values: dict[str, Any] = msgspec.structs.asdict(record)
    raw, location = record.attributes, record.location
    values["location"] = None if location is None else location[:SHORT_BYTES]
    values["attributes"] = None if raw is None else msgspec.Raw(bytes(msgspec.Raw(raw))[:SHORT_BYTES])
    return Shortened(**values, text_bytes=size)
