"""A file added by a version of the archive's table, as forwards record it."""

from __future__ import annotations

from typing import NamedTuple


class NewFile(NamedTuple):
    """Path from the table's root, size in bytes, and number of records."""

    path: str
    size_bytes: int
    rows: int
