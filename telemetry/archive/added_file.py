"""A file that a version of the archive's table added, as forwards note it."""

from __future__ import annotations

from typing import NamedTuple


class NewFile(NamedTuple):
    """Its path from the table's root, its size, and how many records it holds."""

    path: str
    size_bytes: int
    rows: int
